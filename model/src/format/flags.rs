//! What went wrong with a request, in the letters that Envoy's logs have.

use std::fmt;

/// One thing that went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Flag {
    /// No endpoint to send it to.
    NoHealthyUpstream,
    /// The endpoint could not be reached.
    UpstreamConnection,
    /// A limit was reached.
    UpstreamOverflow,
    /// No route.
    NoRoute,
    /// The endpoint did not answer in time.
    UpstreamTimeout,
    /// The endpoint broke off.
    UpstreamTerminated,
    /// All tries failed.
    RetriesSpent,
    /// The caller went away.
    DownstreamTerminated,
    /// The caller broke the protocol.
    DownstreamProtocol,
    /// The endpoint broke the protocol.
    UpstreamProtocol,
    /// The stream was idle for too long.
    StreamIdle,
    /// The stream took too long.
    DurationTimeout,
    /// The cluster is not known.
    NoCluster,
    /// This proxy has too much to do.
    Overloaded,
    /// It was not allowed.
    Denied,
    /// There were too many.
    RateLimited,
    /// It was delayed on purpose.
    DelayInjected,
    /// It was answered on purpose.
    FaultInjected,
    /// The endpoint's name could not be looked up.
    NameUnknown,
}

impl Flag {
    /// All, in the order they are written.
    pub const ALL: [Self; 19] = [
        Self::NoHealthyUpstream,
        Self::UpstreamConnection,
        Self::UpstreamOverflow,
        Self::NoRoute,
        Self::UpstreamTimeout,
        Self::UpstreamTerminated,
        Self::RetriesSpent,
        Self::DownstreamTerminated,
        Self::DownstreamProtocol,
        Self::UpstreamProtocol,
        Self::StreamIdle,
        Self::DurationTimeout,
        Self::NoCluster,
        Self::Overloaded,
        Self::Denied,
        Self::RateLimited,
        Self::DelayInjected,
        Self::FaultInjected,
        Self::NameUnknown,
    ];

    /// Its letters.
    #[must_use]
    pub fn letters(self) -> &'static str {
        match self {
            Self::NoHealthyUpstream => "UH",
            Self::UpstreamConnection => "UF",
            Self::UpstreamOverflow => "UO",
            Self::NoRoute => "NR",
            Self::UpstreamTimeout => "UT",
            Self::UpstreamTerminated => "UC",
            Self::RetriesSpent => "URX",
            Self::DownstreamTerminated => "DC",
            Self::DownstreamProtocol => "DPE",
            Self::UpstreamProtocol => "UPE",
            Self::StreamIdle => "SI",
            Self::DurationTimeout => "DT",
            Self::NoCluster => "NC",
            Self::Overloaded => "OM",
            Self::Denied => "UAEX",
            Self::RateLimited => "RL",
            Self::DelayInjected => "DI",
            Self::FaultInjected => "FI",
            Self::NameUnknown => "DF",
        }
    }

    /// The flag of these letters.
    #[must_use]
    pub fn of(letters: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|flag| flag.letters() == letters)
    }
}

/// What went wrong with one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags(u32);

impl Flags {
    /// With one more.
    #[must_use]
    pub fn with(self, flag: Flag) -> Self {
        Self(self.0 | (1 << flag as u32))
    }

    /// Whether nothing went wrong.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether this went wrong.
    #[must_use]
    pub fn has(self, flag: Flag) -> bool {
        self.0 & (1 << flag as u32) != 0
    }

    /// Whether one of these went wrong.
    #[must_use]
    pub fn has_any(self, others: Self) -> bool {
        self.0 & others.0 != 0
    }
}

impl fmt::Display for Flags {
    /// Letters joined by commas.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for flag in Flag::ALL.into_iter().filter(|flag| self.has(*flag)) {
            write!(formatter, "{separator}{}", flag.letters())?;
            separator = ",";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_have_letters() {
        let flags = Flags::default()
            .with(Flag::UpstreamTerminated)
            .with(Flag::NoHealthyUpstream);
        assert_eq!(flags.to_string(), "UH,UC");
        assert!(!flags.has(Flag::NoRoute) && Flags::default().is_empty());
        for flag in Flag::ALL {
            assert_eq!(Flag::of(flag.letters()), Some(flag));
        }
    }
}
