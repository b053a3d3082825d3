//! What a proxy gives up when its memory runs short, so that it is not killed with all its requests.

use std::time::Duration;

/// What is given up, and from which share of the memory on.
#[derive(Debug, Clone, PartialEq)]
pub struct Overload {
    /// The memory that may be used, in bytes; what the container may have, where none is given.
    pub limit: Option<u64>,
    /// How often the memory is looked at.
    pub refresh: Duration,
    /// From which share on requests are refused.
    pub requests: Option<f64>,
    /// From which share on connections are refused.
    pub connections: Option<f64>,
    /// From which share on connections over HTTP/1.1 end with their request.
    pub keep_alive: Option<f64>,
}

impl Default for Overload {
    /// Requests and connections are refused from 90 % of the container's memory on.
    fn default() -> Self {
        Self {
            limit: None,
            refresh: Duration::from_secs(1),
            requests: Some(0.9),
            connections: Some(0.9),
            keep_alive: None,
        }
    }
}

/// What is given up now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shed {
    /// Requests are refused.
    pub requests: bool,
    /// Connections are refused.
    pub connections: bool,
    /// Connections over HTTP/1.1 end with their request.
    pub keep_alive: bool,
}

impl Overload {
    /// What to give up when so many bytes of a limit are used.
    #[must_use]
    pub fn decide(&self, used: u64, limit: u64) -> Shed {
        let share = used as f64 / limit.max(1) as f64;
        let is_over = |threshold: Option<f64>| threshold.is_some_and(|own| share >= own);
        Shed {
            requests: is_over(self.requests),
            connections: is_over(self.connections),
            keep_alive: is_over(self.keep_alive),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_given_up_from_its_share_on() {
        let own = Overload {
            keep_alive: Some(0.5),
            connections: None,
            ..Overload::default()
        };
        let decide = |used| {
            let shed = own.decide(used, 100);
            (shed.keep_alive, shed.requests, shed.connections)
        };
        assert_eq!(decide(49), (false, false, false));
        assert_eq!(decide(50), (true, false, false));
        assert_eq!(decide(90), (true, true, false));
        assert!(own.decide(1, 0).requests);
    }
}
