//! gRPC's `grpc-timeout` header
//! (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>): at most eight digits and a unit.

use std::time::Duration;

/// Reads a `grpc-timeout`; nothing when it is none.
#[must_use]
pub fn parse_grpc_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(value * 3600),
        "M" => Duration::from_secs(value * 60),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return None,
    })
}

/// Writes a `grpc-timeout` in the finest unit that fits eight digits, rounded down.
#[must_use]
pub fn format_grpc_timeout(timeout: Duration) -> String {
    const MOST: u128 = 99_999_999;
    let nanoseconds = timeout.as_nanos();
    [
        ("n", 1),
        ("u", 1_000),
        ("m", 1_000_000),
        ("S", 1_000_000_000),
        ("M", 60_000_000_000),
    ]
    .into_iter()
    .map(|(unit, size)| (nanoseconds / size, unit))
    .find(|(value, _)| *value <= MOST)
    .map_or_else(
        || format!("{}H", (nanoseconds / 3_600_000_000_000).min(MOST)),
        |(value, unit)| format!("{value}{unit}"),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_what_the_protocol_has_is_read() {
        assert_eq!(parse_grpc_timeout("100m"), Some(Duration::from_millis(100)));
        assert_eq!(parse_grpc_timeout("2H"), Some(Duration::from_secs(7200)));
        for text in [
            "",
            "m",
            "1",
            "-1m",
            "+1m",
            "123456789m",
            "1x",
            "1.5S",
            " 1m",
            "1\u{b5}",
        ] {
            assert_eq!(parse_grpc_timeout(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_never_later(nanoseconds in 0..=u64::MAX) {
            let timeout = Duration::from_nanos(nanoseconds);
            let read = parse_grpc_timeout(&format_grpc_timeout(timeout)).expect("its own form");
            prop_assert!(read <= timeout);
            prop_assert!(timeout.as_secs_f64() - read.as_secs_f64() <= timeout.as_secs_f64() / 1e6 + 60.0);
        }
    }
}
