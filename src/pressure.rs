//! How much RAM this process can still take: what the machine has left, or its container if less.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const BYTES_PER_MB: f64 = 1_048_576.0;

/// RAM of the machine or the container, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// The smallest limit that binds this process, or all RAM of the machine.
    pub total: u64,
    /// What can still be taken before the kernel runs out.
    pub available: u64,
}

impl Memory {
    /// Bytes that have to be given back until as much is available as `free_memory_target` asks
    /// for: a number of MB (2^20 bytes) or, up to 1, a fraction of all RAM. 0: nothing is missing.
    pub fn shortage(&self, free_memory_target: f64) -> u64 {
        #[expect(clippy::cast_precision_loss, reason = "a page more or less is nothing")]
        let unit = if free_memory_target <= 1.0 {
            self.total as f64
        } else {
            BYTES_PER_MB
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "saturates; what is not a number asks for nothing"
        )]
        let target = (free_memory_target * unit) as u64;
        target.saturating_sub(self.available)
    }
}

/// Where readings come from.
#[derive(Debug, Clone, Default)]
pub enum Gauge {
    /// The machine, and on Linux the control groups this process is in.
    #[default]
    System,
    /// A reading that is set by hand: for tests.
    Manual(ManualGauge),
}

impl Gauge {
    /// The memory as it is now; `None` where nothing can be read.
    pub fn read(&self) -> Option<Memory> {
        match self {
            Self::System => read_system(),
            Self::Manual(gauge) => Some(Memory {
                total: gauge.0.total.load(Ordering::Acquire),
                available: gauge.0.available.load(Ordering::Acquire),
            }),
        }
    }
}

/// A gauge for tests: it shows what it was told; clones show the same.
#[derive(Debug, Clone)]
pub struct ManualGauge(Arc<Reading>);

#[derive(Debug)]
struct Reading {
    total: AtomicU64,
    available: AtomicU64,
}

impl ManualGauge {
    /// A gauge that shows `memory`.
    pub fn new(memory: Memory) -> Self {
        Self(Arc::new(Reading {
            total: AtomicU64::new(memory.total),
            available: AtomicU64::new(memory.available),
        }))
    }

    /// Sets the available bytes.
    pub fn set_available(&self, available: u64) {
        self.0.available.store(available, Ordering::Release);
    }
}

#[cfg(target_os = "linux")]
fn read_system() -> Option<Memory> {
    linux::read(std::path::Path::new("/"))
}

#[cfg(not(target_os = "linux"))]
fn read_system() -> Option<Memory> {
    use sysinfo::{MemoryRefreshKind, RefreshKind, System};

    let ram = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
    let system = System::new_with_specifics(ram).ok()?;
    // 0 where it cannot tell.
    (system.total_memory() > 0).then(|| Memory {
        total: system.total_memory(),
        available: system.available_memory(),
    })
}

/// `/proc/meminfo` knows only the machine; the limits of containers are in the files of control
/// groups, of either version or, in a hybrid set-up, both. What is missing or odd limits nothing.
#[cfg(target_os = "linux")]
mod linux {
    use std::fs::File;
    use std::io::Read;
    use std::path::{Component, Path, PathBuf};

    use super::Memory;

    /// How one version of control groups names what it tells about memory, in bytes.
    struct Version {
        limits: &'static [&'static str],
        usage: &'static str,
        /// Lines of `memory.stat`, of the group and all below it.
        page_cache: [&'static str; 2],
    }

    static V1: Version = Version {
        limits: &["memory.limit_in_bytes"],
        usage: "memory.usage_in_bytes",
        page_cache: ["total_inactive_file", "total_active_file"],
    };

    static V2: Version = Version {
        // Above `high` nothing is killed, but everything is slowed down to a crawl.
        limits: &["memory.max", "memory.high"],
        usage: "memory.current",
        page_cache: ["inactive_file", "active_file"],
    };

    /// Version 1 writes "no limit" as the largest count of pages there is, in bytes.
    const UNLIMITED: u64 = 1 << 62;

    /// Page cache keeps at most the limit divided by this to itself, see [`reclaimable`].
    const WORKING_SET: u64 = 16;

    /// Tens of thousands of mounts; in bytes.
    const LONGEST_FILE: u64 = 16 << 20;

    /// Reads the memory as it is shown below `root`, which is `/` but in tests.
    pub(super) fn read(root: &Path) -> Option<Memory> {
        let meminfo = read_text(&root.join("proc/meminfo")).unwrap_or_default();
        let machine = |name| field(&meminfo, name).map(|kib: u64| kib.saturating_mul(1024));
        let mut total = machine("MemTotal:");
        let mut available = machine("MemAvailable:");
        for (version, folder) in groups(root) {
            if let Some(group) = read_group(version, &folder) {
                total = Some(total.map_or(group.total, |total| total.min(group.total)));
                let least = available.map_or(group.available, |bytes| bytes.min(group.available));
                available = Some(least);
            }
        }
        Some(Memory {
            total: total?,
            available: available?,
        })
    }

    /// The folders of the groups this process is in, with all groups above that can be seen.
    fn groups(root: &Path) -> Vec<(&'static Version, PathBuf)> {
        let proc = root.join("proc/self");
        let mounts = read_text(&proc.join("mountinfo")).unwrap_or_default();
        let mounts: Vec<Mount> = mounts.lines().filter_map(Mount::parse).collect();
        let own = read_text(&proc.join("cgroup")).unwrap_or_default();
        let mut found = Vec::new();
        for (version, path) in own.lines().filter_map(parse_own_group) {
            let mounts = || mounts.iter().filter(|m| std::ptr::eq(m.version, version));
            let mut chains: Vec<(&Path, PathBuf)> = mounts()
                .filter_map(|mount| Some((mount.point.as_path(), mount.folder(path)?)))
                .collect();
            if chains.is_empty() {
                // In a container the path may be the host's: what is mounted is our group.
                let first = mounts().next();
                chains.extend(first.map(|mount| (mount.point.as_path(), mount.point.clone())));
            }
            for (point, folder) in &chains {
                let chain = folder.ancestors().take_while(|it| it.starts_with(point));
                found.extend(chain.map(|folder| {
                    let folder = folder.strip_prefix("/").unwrap_or(folder);
                    (version, root.join(folder))
                }));
            }
        }
        found
    }

    /// A line of `/proc/self/cgroup`: `4:cpu,memory:/path` of version 1, `0::/path` of version 2.
    fn parse_own_group(line: &str) -> Option<(&'static Version, &str)> {
        let (_, line) = line.split_once(':')?;
        let (controllers, path) = line.split_once(':')?;
        if controllers.is_empty() {
            return Some((&V2, path));
        }
        let has_memory = controllers.split(',').any(|name| name == "memory");
        has_memory.then_some((&V1, path))
    }

    /// A mounted hierarchy of groups, or a part of one.
    struct Mount {
        version: &'static Version,
        /// The group that is mounted.
        group: PathBuf,
        /// The folder it is mounted on.
        point: PathBuf,
    }

    impl Mount {
        /// A line of `/proc/self/mountinfo`; `None` for whatever else is mounted.
        fn parse(line: &str) -> Option<Self> {
            let (place, kind) = line.split_once(" - ")?;
            let mut kind = kind.split(' ');
            let version = match (kind.next()?, kind.nth(1)) {
                ("cgroup2", _) => &V2,
                ("cgroup", Some(options)) if options.split(',').any(|it| it == "memory") => &V1,
                _ => return None,
            };
            let mut place = place.split(' ').skip(3).map(unescape);
            Some(Self {
                version,
                group: place.next()?,
                point: place.next()?,
            })
        }

        /// Where the group `path` is; `None` if it is not below the one that is mounted.
        fn folder(&self, path: &str) -> Option<PathBuf> {
            let below = Path::new(path).strip_prefix(&self.group).ok()?;
            // `..` leads out of the namespace of groups that this process can see.
            let is_plain = below
                .components()
                .all(|it| matches!(it, Component::Normal(_)));
            is_plain.then(|| self.point.join(below))
        }
    }

    /// Undoes how the kernel writes paths into `mountinfo`.
    fn unescape(path: &str) -> PathBuf {
        let path = path.replace(r"\040", " ").replace(r"\011", "\t");
        path.replace(r"\012", "\n").replace(r"\134", r"\").into()
    }

    /// The limit of one group and what is left of it; `None` if it has no limit.
    fn read_group(version: &Version, folder: &Path) -> Option<Memory> {
        let number = |name: &str| read_text(&folder.join(name))?.trim().parse::<u64>().ok();
        let limits = version.limits.iter().filter_map(|name| number(name));
        // Nothing can run in a group of 0 bytes; `high` is set to it for moments, to empty caches.
        let limit = limits
            .filter(|limit| (1..UNLIMITED).contains(limit))
            .min()?;
        let usage = number(version.usage)?;
        // A limit holds even where nothing tells what could be given back.
        let stat = read_text(&folder.join("memory.stat")).unwrap_or_default();
        let page_cache = version
            .page_cache
            .map(|name| field(&stat, name).unwrap_or(0));
        let cached = page_cache[0].saturating_add(page_cache[1]);
        let used = usage.saturating_sub(reclaimable(cached, limit));
        Some(Memory {
            total: limit,
            available: limit.saturating_sub(used),
        })
    }

    /// How much of the page cache the kernel gives back before it kills.
    ///
    /// Both lists count, the active one too: a file that is read twice is all active until memory
    /// runs short, so a process that lives on a database file would seem to be at its limit for
    /// ever, and to evict values would not help it. But some pages, the program's code among them,
    /// would be read again at once. As the kernel does for `MemAvailable`, half of the cache is
    /// left to them, up to a bound: a process that is left with little else does not look fine.
    fn reclaimable(cached: u64, limit: u64) -> u64 {
        cached - (cached / 2).min(limit / WORKING_SET)
    }

    /// The number after a name, in lines of `name number`.
    fn field(text: &str, name: &str) -> Option<u64> {
        let mut lines = text.lines().map(str::split_ascii_whitespace);
        let mut line = lines.find_map(|mut words| (words.next()? == name).then_some(words))?;
        line.next()?.parse().ok()
    }

    /// A whole file, closed again; bytes that are no text (a mount's path may be any) are replaced.
    fn read_text(path: &Path) -> Option<String> {
        // Not `fs::read`: half of what it asks the kernel is sizes, which are all 0 here.
        let mut bytes = Vec::with_capacity(8 * 1024);
        let file = File::open(path).ok()?;
        file.take(LONGEST_FILE).read_to_end(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1 << 20;

    fn memory(total: u64, available: u64) -> Memory {
        Memory {
            total: total * MB,
            available: available * MB,
        }
    }

    #[test]
    fn a_target_above_1_is_in_mb() {
        assert_eq!(memory(8000, 400).shortage(500.0), 100 * MB);
        assert_eq!(memory(8000, 500).shortage(500.0), 0);
        assert_eq!(memory(8000, 501).shortage(500.0), 0);
        assert_eq!(memory(8000, 1).shortage(1.5), MB / 2);
    }

    #[test]
    fn a_target_up_to_1_is_a_fraction_of_all_ram() {
        assert_eq!(memory(8000, 1500).shortage(0.25), 500 * MB);
        assert_eq!(memory(8000, 2000).shortage(0.25), 0);
        assert_eq!(memory(8000, 7999).shortage(1.0), MB);
        assert_eq!(memory(8000, 0).shortage(0.0), 0);
    }

    #[test]
    fn an_odd_target_does_no_harm() {
        assert_eq!(memory(8000, 400).shortage(f64::NAN), 0);
        assert_eq!(memory(8000, 400).shortage(-1.0), 0);
        assert_eq!(
            memory(8000, 400).shortage(f64::INFINITY),
            u64::MAX - 400 * MB
        );
    }

    #[test]
    fn a_manual_gauge_shows_what_it_is_told() {
        let manual = ManualGauge::new(memory(100, 60));
        let gauge = Gauge::Manual(manual.clone());
        assert_eq!(gauge.read(), Some(memory(100, 60)));
        manual.set_available(7 * MB);
        assert_eq!(gauge.read(), Some(memory(100, 7)));
        assert_eq!(gauge.clone().read(), Some(memory(100, 7)));
    }

    #[test]
    fn this_machine_can_be_read() {
        let memory = Gauge::default().read().unwrap();
        assert!(memory.total > 16 * MB, "{memory:?}");
        assert!((1..=memory.total).contains(&memory.available), "{memory:?}");
    }

    #[cfg(target_os = "linux")]
    mod linux {
        use std::fs;

        use tempfile::TempDir;

        use super::super::linux::read;
        use super::{MB, Memory, memory};

        const V1_MOUNT: &str = "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory";
        const V2_MOUNT: &str = "30 23 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw";

        /// The root of a made-up machine.
        struct Root(TempDir);

        impl Root {
            /// A machine of 1000 MB with 800 available, the given mounts and own groups.
            fn new(mounts: &[&str], groups: &[&str]) -> Self {
                let root = Self(TempDir::new().unwrap());
                let kib = |mb: u64| mb * 1024;
                let (total, available) = (kib(1000), kib(800));
                root.write(
                    "proc/meminfo",
                    format!("MemTotal:  {total} kB\nMemFree: 1 kB\nMemAvailable: {available} kB\n"),
                );
                let others = "22 27 0:21 / /proc rw - proc proc rw\n\
                              31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                              33 31 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n";
                let mounts = others.to_owned() + &mounts.join("\n") + "\n";
                root.write("proc/self/mountinfo", mounts);
                root.write("proc/self/cgroup", groups.join("\n") + "\n");
                root
            }

            fn write(&self, path: &str, content: impl AsRef<[u8]>) {
                let path = self.0.path().join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, content).unwrap();
            }

            /// The files of a group of version 1; in MB.
            fn v1(&self, folder: &str, limit: u64, usage: u64) {
                let write = |name: &str, text: String| {
                    self.write(&format!("sys/fs/cgroup/{folder}/memory.{name}"), text);
                };
                write("limit_in_bytes", format!("{}\n", limit * MB));
                write("usage_in_bytes", format!("{}\n", usage * MB));
                write("stat", String::from("inactive_file 7\nactive_file 7\n"));
            }

            /// The files of a group of version 2; in MB, `max` as it is written.
            fn v2(&self, folder: &str, max: &str, usage: u64) {
                let write = |name: &str, text: String| {
                    self.write(&format!("sys/fs/cgroup/{folder}/memory.{name}"), text);
                };
                write("max", format!("{max}\n"));
                write("high", String::from("max\n"));
                write("current", format!("{}\n", usage * MB));
                write("stat", String::from("anon 1\ninactive_file 0\n"));
            }

            fn read(&self) -> Option<Memory> {
                read(self.0.path())
            }
        }

        fn bytes(mb: u64) -> String {
            (mb * MB).to_string()
        }

        #[test]
        fn without_groups_it_is_the_machine() {
            let root = Root::new(&[], &[]);
            assert_eq!(root.read(), Some(memory(1000, 800)));
            fs::remove_dir_all(root.0.path().join("proc/self")).unwrap();
            assert_eq!(root.read(), Some(memory(1000, 800)));
        }

        #[test]
        fn without_proc_nothing_can_be_read() {
            assert_eq!(read(TempDir::new().unwrap().path()), None);
        }

        #[test]
        fn a_limit_of_version_1_counts() {
            let root = Root::new(&[V1_MOUNT], &["5:cpu:/x", "4:hugetlb,memory:/app", "0::/"]);
            root.v1("memory/app", 256, 100);
            assert_eq!(root.read(), Some(memory(256, 156)));
            root.v1("memory/app", 256, 100);
            root.write(
                "sys/fs/cgroup/memory/app/memory.limit_in_bytes",
                "9223372036854771712\n",
            );
            assert_eq!(root.read(), Some(memory(1000, 800)));
            // Nor is it taken for a size where nothing else is known.
            root.write("proc/meminfo", "");
            assert_eq!(root.read(), None);
        }

        #[test]
        fn a_limit_of_version_2_counts() {
            let root = Root::new(&[V2_MOUNT], &["0::/app.slice/app"]);
            root.v2("app.slice/app", &bytes(256), 100);
            assert_eq!(root.read(), Some(memory(256, 156)));
            root.v2("app.slice/app", "max", 100);
            assert_eq!(root.read(), Some(memory(1000, 800)));
            root.write("sys/fs/cgroup/app.slice/app/memory.high", bytes(200));
            assert_eq!(root.read(), Some(memory(200, 100)));
        }

        #[test]
        fn the_tightest_group_above_decides() {
            let root = Root::new(&[V2_MOUNT], &["0::/a/b/c"]);
            root.v2("a", &bytes(300), 290);
            root.v2("a/b", "max", 250);
            root.v2("a/b/c", &bytes(400), 100);
            assert_eq!(root.read(), Some(memory(300, 10)));
            // The smallest limit and the least rest may be of different groups.
            root.v2("a", &bytes(900), 890);
            assert_eq!(root.read(), Some(memory(400, 10)));

            let root = Root::new(&[V1_MOUNT], &["4:memory:/a/b"]);
            root.v1("memory/a", 300, 290);
            root.v1("memory/a/b", 400, 100);
            assert_eq!(root.read(), Some(memory(300, 10)));
        }

        #[test]
        fn the_machine_decides_where_it_has_less_than_the_group() {
            let root = Root::new(&[V2_MOUNT], &["0::/app"]);
            root.v2("app", &bytes(5000), 100);
            assert_eq!(root.read(), Some(memory(1000, 800)));
            root.v2("app", &bytes(950), 100);
            assert_eq!(root.read(), Some(memory(950, 800)));
        }

        #[test]
        fn a_hybrid_machine_is_read_by_version_1() {
            let unified = "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw";
            let groups = ["4:memory:/app", "1:name=systemd:/app", "0::/app"];
            let root = Root::new(&[unified, V1_MOUNT], &groups);
            root.write("sys/fs/cgroup/unified/app/cgroup.procs", "1\n");
            root.v1("memory/app", 256, 100);
            assert_eq!(root.read(), Some(memory(256, 156)));
        }

        #[test]
        fn a_container_reads_what_is_mounted() {
            // Its own part of the host's tree, with the host's path.
            let mount = "35 31 0:32 /docker/ab /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory";
            let root = Root::new(&[mount], &["4:memory:/docker/ab/sub"]);
            root.v1("memory", 256, 100);
            root.v1("memory/sub", 128, 20);
            assert_eq!(root.read(), Some(memory(128, 108)));
            // A path out of what is mounted, out of the namespace, or that cannot be seen.
            for (mount, path) in [
                (mount, "4:memory:/elsewhere/app"),
                (mount, "4:memory:/docker/abc"),
                (V1_MOUNT, "4:memory:/../app"),
                (V1_MOUNT, "4:memory:/docker/gone (deleted)"),
            ] {
                let root = Root::new(&[mount], &[path]);
                root.v1("memory", 256, 100);
                root.v1("app", 16, 16);
                root.v1("memory/app", 16, 16);
                assert_eq!(root.read(), Some(memory(256, 156)), "{mount} {path}");
            }
        }

        #[test]
        fn a_part_mounted_elsewhere_too_does_not_hide_the_group() {
            let part = "50 31 0:26 /other /mnt/some\\040place rw - cgroup2 cgroup2 rw";
            let root = Root::new(&[part, V2_MOUNT], &["0::/app"]);
            root.v2("app", &bytes(256), 100);
            root.v2("../../../mnt/some place", &bytes(16), 16);
            assert_eq!(root.read(), Some(memory(256, 156)));
            let root = Root::new(&[part], &["0::/other/app"]);
            root.v2("../../../mnt/some place/app", &bytes(16), 15);
            assert_eq!(root.read(), Some(memory(16, 1)));
        }

        #[test]
        fn page_cache_is_available_but_for_a_part() {
            let root = Root::new(&[V2_MOUNT], &["0::/app"]);
            let stat = "sys/fs/cgroup/app/memory.stat";
            root.v2("app", &bytes(320), 320);
            let lines = |inactive, active| {
                let (inactive, active) = (bytes(inactive), bytes(active));
                format!("active_anon 9\ninactive_file {inactive}\nactive_file {active}\nfile 9\n")
            };
            // A process that lives on a file: all but a sixteenth of the limit.
            root.write(stat, lines(40, 160));
            assert_eq!(root.read(), Some(memory(320, 180)));
            root.write(stat, lines(0, 200));
            assert_eq!(root.read(), Some(memory(320, 180)));
            // A process that is left with little but its own code: half of it.
            root.write(stat, lines(4, 16));
            assert_eq!(root.read(), Some(memory(320, 10)));

            let root = Root::new(&[V1_MOUNT], &["4:memory:/app"]);
            root.v1("memory/app", 320, 320);
            let lines = lines(20, 80).replace("active_file", "total_active_file");
            let lines = lines.replace("intotal_active_file", "total_inactive_file");
            let stat = "sys/fs/cgroup/memory/app/memory.stat";
            root.write(stat, format!("inactive_file 1\nactive_file 1\n{lines}"));
            assert_eq!(root.read(), Some(memory(320, 80)));
        }

        #[test]
        fn more_used_than_allowed_leaves_nothing() {
            let root = Root::new(&[V2_MOUNT], &["0::/app"]);
            root.v2("app", &bytes(100), 120);
            assert_eq!(root.read(), Some(memory(100, 0)));
            // The counts are not taken at one moment: more cache than is used at all.
            root.write("sys/fs/cgroup/app/memory.stat", "inactive_file 500000000\n");
            assert_eq!(root.read(), Some(memory(100, 100)));
        }

        #[test]
        fn a_bad_file_limits_nothing() {
            let garbage: [&[u8]; 6] = [b"", b"\n", b"-1\n", b"0\n", b"12 MB", b"\xff\xfe\0"];
            for bad in garbage {
                let root = Root::new(&[V2_MOUNT, V1_MOUNT], &["0::/a/b", "4:memory:/a/b"]);
                root.v2("a", &bytes(300), 50);
                root.v2("a/b", &bytes(256), 100);
                root.v1("memory/a/b", 256, 100);
                root.write("sys/fs/cgroup/a/b/memory.max", bad);
                root.write("sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", bad);
                assert_eq!(root.read(), Some(memory(300, 250)), "{bad:?}");
            }
            let root = Root::new(&[V2_MOUNT], &["0::/app"]);
            root.v2("app", &bytes(256), 100);
            root.write("sys/fs/cgroup/app/memory.stat", b"\xff\ninactive_file\n\n");
            assert_eq!(root.read(), Some(memory(256, 156)));
            root.write("sys/fs/cgroup/app/memory.current", "?");
            assert_eq!(root.read(), Some(memory(1000, 800)));
            fs::remove_file(root.0.path().join("sys/fs/cgroup/app/memory.max")).unwrap();
            fs::create_dir(root.0.path().join("sys/fs/cgroup/app/memory.max")).unwrap();
            assert_eq!(root.read(), Some(memory(1000, 800)));
        }

        #[test]
        fn bad_lines_in_proc_do_not_hide_good_ones() {
            let root = Root::new(&[V2_MOUNT], &["0::/app"]);
            root.v2("app", &bytes(256), 100);
            let mounts = [
                b"\xff - \n\n - cgroup2\n1 2 - cgroup2 x y\n",
                V2_MOUNT.as_bytes(),
            ];
            root.write("proc/self/mountinfo", mounts.concat());
            root.write("proc/self/cgroup", "\n:\n0\n4:memory\n\u{1f980}\n0::/app");
            assert_eq!(root.read(), Some(memory(256, 156)));
            // The group alone tells enough, the machine alone too, half of it does not.
            root.write("proc/meminfo", "MemTotal: many kB\nMemAvailable:\n");
            assert_eq!(root.read(), Some(memory(256, 156)));
            root.write("proc/self/cgroup", "");
            assert_eq!(root.read(), None);
            root.write("proc/meminfo", "MemTotal: 1024 kB\n");
            assert_eq!(root.read(), None);
        }

        #[test]
        fn no_file_stays_open() {
            let root = Root::new(&[V2_MOUNT], &["0::/app"]);
            root.v2("app", &bytes(256), 100);
            let held = || {
                let links = fs::read_dir("/proc/self/fd").unwrap();
                let files = links.filter_map(|link| fs::read_link(link.unwrap().path()).ok());
                files.filter(|file| file.starts_with(root.0.path())).count()
            };
            let open = fs::File::open(root.0.path().join("proc/meminfo")).unwrap();
            assert_eq!(held(), 1);
            drop(open);
            assert!(root.read().is_some());
            assert_eq!(held(), 0);
        }
    }
}
