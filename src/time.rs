//! Points in time, times to live, and a clock that tests can turn.
//!
//! A timestamp is a count of microseconds since 1970-01-01 UTC: the resolution of the text in the
//! database file (`2026-11-22T06:00:15.407783+00:00`) and of Python's `datetime`.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use time::{Date, Month, OffsetDateTime};

use crate::error::{Error, Result};

const MICROS_PER_SECOND: i64 = 1_000_000;

/// Within this distance of a deadline the coarse clock, which ticks every 1 to 4 ms (10 ms on
/// kernels built with `HZ=100`), is not trusted.
const COARSE_MARGIN_US: i64 = 10_000;

/// Microseconds since 1970-01-01 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// `9999-12-31T23:59:59.999999+00:00`: how an entry that never expires is stored.
    pub const NEVER: Self = Self(253_402_300_799_999_999);

    /// This point plus a time to live; never later than [`Timestamp::NEVER`].
    #[must_use]
    pub fn after(self, ttl: Ttl) -> Self {
        match ttl {
            Ttl::Never => Self::NEVER,
            Ttl::Micros(micros) => Self(self.0.saturating_add(micros).min(Self::NEVER.0)),
        }
    }

    /// Reads ISO-8601 text as Python writes it: a `T` or a space, seconds with or without a
    /// fraction, an offset or none (then UTC). `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let (date, clock) = (text.get(..10)?, text.get(11..)?);
        if !matches!(text.as_bytes()[10], b'T' | b' ' | b't') {
            return None;
        }
        let mut parts = date.split('-');
        let year = digits(parts.next()?)?;
        let month = Month::try_from(u8::try_from(digits(parts.next()?)?).ok()?).ok()?;
        let day = u8::try_from(digits(parts.next()?)?).ok()?;
        let date = Date::from_calendar_date(i32::try_from(year).ok()?, month, day).ok()?;

        let end = clock.find(['+', '-', 'Z', 'z']).unwrap_or(clock.len());
        let (clock, offset) = clock.split_at(end);
        let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
        let seconds = seconds_of_day(clock)?;
        let micros = match fraction.len() {
            0 => 0,
            n @ 1..=6 => digits(fraction)? * 10_i64.pow(6 - u32::try_from(n).ok()?),
            _ => digits(fraction.get(..6)?)?,
        };
        let midnight = date.midnight().assume_utc().unix_timestamp();
        let seconds = midnight + seconds - offset_seconds(offset)?;
        Some(Self(seconds.checked_mul(MICROS_PER_SECOND)? + micros))
    }
}

/// `HH:MM` or `HH:MM:SS`, as seconds.
fn seconds_of_day(clock: &str) -> Option<i64> {
    let mut parts = clock.split(':');
    let hours = digits(parts.next()?)?;
    let minutes = digits(parts.next()?)?;
    let seconds = parts.next().map_or(Some(0), digits)?;
    let valid = hours < 24 && minutes < 60 && seconds < 60 && parts.next().is_none();
    valid.then_some(hours * 3600 + minutes * 60 + seconds)
}

/// Nothing, `Z`, `+HH:MM` or `-HH:MM`, as seconds east of UTC.
fn offset_seconds(offset: &str) -> Option<i64> {
    match offset.as_bytes().first() {
        None => Some(0),
        Some(b'Z' | b'z') if offset.len() == 1 => Some(0),
        Some(b'+') => seconds_of_day(&offset[1..]),
        Some(b'-') => seconds_of_day(&offset[1..]).map(|seconds| -seconds),
        Some(_) => None,
    }
}

/// Plain decimal digits only: `str::parse` would also take a sign.
fn digits(text: &str) -> Option<i64> {
    let plain = !text.is_empty() && text.len() <= 6 && text.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

impl fmt::Display for Timestamp {
    /// The text of the database file: always six digits of fraction, so that texts sort as the
    /// times they stand for.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.rem_euclid(MICROS_PER_SECOND);
        let clamped = self.0.clamp(0, Self::NEVER.0);
        let moment = OffsetDateTime::from_unix_timestamp(clamped / MICROS_PER_SECOND)
            .unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let (date, clock) = (moment.date(), moment.time());
        write!(
            f,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{micros:06}+00:00",
            date.year(),
            u8::from(date.month()),
            date.day(),
            clock.hour(),
            clock.minute(),
            clock.second(),
        )
    }
}

/// How long an entry lives after it was set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ttl {
    /// Microseconds; 0 means "do not keep".
    Micros(i64),
    /// Until it is removed.
    Never,
}

impl Ttl {
    /// Checks a number of seconds: NaN and negative numbers are refused, infinity never expires.
    pub fn from_seconds(seconds: f64) -> Result<Self> {
        if seconds.is_nan() || seconds < 0.0 {
            return Err(Error::InvalidSetting {
                name: "time_to_live",
                reason: format!(
                    "{seconds} is not a time to live; give seconds >= 0 (0 keeps nothing), \
                     math.inf for ever, or None for the default"
                ),
            });
        }
        // 10,000 years: everything longer ends at the same last representable moment.
        if seconds >= 3.2e11 {
            return Ok(Self::Never);
        }
        #[expect(clippy::cast_possible_truncation, reason = "bounded just above")]
        let micros = (seconds * 1e6).ceil() as i64;
        Ok(Self::Micros(micros))
    }

    /// Reads text such as `"1h30m"`: whole numbers, each with one of the units d, h, m, s.
    pub fn from_text(text: &str) -> Result<Self> {
        let wrong = || Error::InvalidSetting {
            name: "time_to_live",
            reason: format!(
                "{text:?} is not a time to live; write it like \"1h30m\" (d, h, m, s), or give math.inf for ever"
            ),
        };
        let (mut seconds, mut number, mut digits) = (0_i64, 0_i64, 0);
        for character in text.chars() {
            if let Some(digit) = character.to_digit(10) {
                number = number
                    .checked_mul(10)
                    .and_then(|n| n.checked_add(digit.into()))
                    .ok_or_else(wrong)?;
                digits += 1;
                continue;
            }
            let unit = match character {
                'd' => 86_400,
                'h' => 3_600,
                'm' => 60,
                's' => 1,
                _ => return Err(wrong()),
            };
            if digits == 0 {
                return Err(wrong());
            }
            let part = number.checked_mul(unit).ok_or_else(wrong)?;
            seconds = seconds.checked_add(part).ok_or_else(wrong)?;
            (number, digits) = (0, 0);
        }
        if text.is_empty() || digits > 0 {
            return Err(wrong());
        }
        #[expect(
            clippy::cast_precision_loss,
            reason = "centuries are exact to the second"
        )]
        Self::from_seconds(seconds as f64)
    }

    /// True for a time to live of 0: nothing is to be kept.
    pub fn is_zero(self) -> bool {
        self == Self::Micros(0)
    }
}

/// Where the time comes from.
#[derive(Debug, Clone, Default)]
pub enum Clock {
    /// The system's wall clock.
    #[default]
    System,
    /// A clock that stands still until it is turned: for tests.
    Manual(ManualClock),
}

impl Clock {
    /// The wall clock, to the microsecond.
    pub fn now(&self) -> Timestamp {
        match self {
            Self::System => {
                let since = SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .unwrap_or_default();
                Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
            }
            Self::Manual(clock) => Timestamp(clock.0.load(Ordering::Acquire)),
        }
    }

    /// The wall clock at the resolution of the kernel's tick, several times cheaper than
    /// [`Clock::now`]; good enough wherever [`Clock::is_past`] decides.
    #[inline]
    pub fn coarse(&self) -> Timestamp {
        match self {
            #[cfg(target_os = "linux")]
            Self::System => {
                let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
                Timestamp(now.tv_sec * MICROS_PER_SECOND + now.tv_nsec / 1_000)
            }
            _ => self.now(),
        }
    }

    /// Whether `deadline` has been reached, given a coarse reading: near the deadline the precise
    /// clock is asked.
    #[inline]
    pub fn is_past(&self, coarse: Timestamp, deadline: Timestamp) -> bool {
        if (deadline.0 - coarse.0).abs() > COARSE_MARGIN_US {
            return coarse >= deadline;
        }
        self.now() >= deadline
    }
}

/// A clock for tests: it moves only when told to.
#[derive(Debug, Clone)]
pub struct ManualClock(Arc<AtomicI64>);

impl ManualClock {
    /// A clock that stands at `now`.
    pub fn new(now: Timestamp) -> Self {
        Self(Arc::new(AtomicI64::new(now.0)))
    }

    /// Moves the clock by `micros` microseconds; backwards if negative.
    pub fn advance(&self, micros: i64) {
        self.0.fetch_add(micros, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_number_convert_both_ways() {
        for text in [
            "1970-01-01T00:00:00.000000+00:00",
            "2026-11-22T06:00:15.407783+00:00",
            "9999-12-31T23:59:59.999999+00:00",
        ] {
            assert_eq!(Timestamp::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(
            Timestamp::parse("9999-12-31T23:59:59.999999+00:00"),
            Some(Timestamp::NEVER)
        );
    }

    #[test]
    fn every_spelling_of_python_isoformat_is_read() {
        let expected = Timestamp::parse("2026-11-22T06:00:15.000000+00:00");
        for text in [
            "2026-11-22T06:00:15+00:00",
            "2026-11-22 06:00:15",
            "2026-11-22T06:00:15Z",
            "2026-11-22T07:00:15+01:00",
            "2026-11-22T06:00:15.0",
        ] {
            assert_eq!(Timestamp::parse(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "garbage",
            "2026-13-01T00:00:00",
            "2026-11-22T25:00:00",
            "2026-11-22",
            "2026-11-22T06:00:15+",
            "2026-11-22T+6:00:15",
            "\u{e9}026-11-22T06:00:15",
        ] {
            assert_eq!(Timestamp::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_ttl_is_refused_when_negative_or_nan_and_endless_when_infinite() {
        assert!(Ttl::from_seconds(-1.0).is_err());
        assert!(Ttl::from_seconds(f64::NAN).is_err());
        assert_eq!(Ttl::from_seconds(f64::INFINITY), Ok(Ttl::Never));
        assert_eq!(Ttl::from_seconds(1e-9), Ok(Ttl::Micros(1)));
        assert!(Ttl::from_seconds(0.0).unwrap().is_zero());
        assert_eq!(Timestamp(5).after(Ttl::Never), Timestamp::NEVER);
    }

    #[test]
    fn a_ttl_can_be_written_in_units() {
        assert_eq!(Ttl::from_text("1h30m"), Ok(Ttl::Micros(5_400_000_000)));
        assert_eq!(Ttl::from_text("2d"), Ok(Ttl::Micros(172_800_000_000)));
        for bad in ["", "1", "h", "1x", "-1h", "1 h", "99999999999999999999d"] {
            assert!(Ttl::from_text(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_deadline_itself_is_past_also_on_a_coarse_reading() {
        let clock = Clock::Manual(ManualClock::new(Timestamp(1_000)));
        assert!(clock.is_past(Timestamp(500), Timestamp(1_000)));
        assert!(!clock.is_past(Timestamp(500), Timestamp(1_001)));
    }
}
