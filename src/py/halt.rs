//! Daemon threads that the interpreter takes down when the program ends, while they are inside of
//! the program's own code.

/// Parks the thread when it is unwound by no panic.
struct Halt;

impl Drop for Halt {
    fn drop(&mut self) {
        while !std::thread::panicking() {
            std::thread::park();
        }
    }
}

/// Calls code of the program. Up to Python 3.13 a daemon thread that asks for the interpreter when
/// it ends is unwound by force, which Rust's frames further up cannot stand: it stops here instead,
/// until the process has gone.
pub(super) fn call<T>(code: impl FnOnce() -> T) -> T {
    let halt = Halt;
    let result = code();
    std::mem::forget(halt);
    result
}
