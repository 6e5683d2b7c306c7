use serde::{Deserialize, Serialize};

use crate::{model::Quotas, telemetry};

/// A quota that nodes share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
pub enum Kind {
    /// Connections at once.
    Connections,
    /// Publications a second, in thousandths.
    Messages,
    /// Channels at once.
    Channels,
    /// Requests of backends a second, in thousandths.
    Calls,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Connections, Self::Messages, Self::Channels, Self::Calls];

    /// How many parts a unit is shared in: a rate of one a second can be shared, too.
    pub const fn parts(self) -> u64 {
        match self {
            Self::Connections | Self::Channels => 1,
            Self::Messages | Self::Calls => 1_000,
        }
    }

    /// The quota, in its parts.
    pub fn limit(self, quotas: &Quotas) -> Option<u64> {
        let quota = match self {
            Self::Connections => quotas.peak_connections,
            Self::Messages => quotas.messages_per_second,
            Self::Channels => quotas.channels,
            Self::Calls => quotas.api_calls_per_second,
        };
        quota.map(|quota| quota.saturating_mul(self.parts()))
    }

    /// As metrics and events call it.
    pub const fn label(self) -> telemetry::QuotaName {
        match self {
            Self::Connections => telemetry::QuotaName::PeakConnections,
            Self::Messages => telemetry::QuotaName::MessagesPerSecond,
            Self::Channels => telemetry::QuotaName::Channels,
            Self::Calls => telemetry::QuotaName::ApiCallsPerSecond,
        }
    }
}

impl From<Kind> for u8 {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Connections => 0,
            Kind::Messages => 1,
            Kind::Channels => 2,
            Kind::Calls => 3,
        }
    }
}

impl TryFrom<u8> for Kind {
    type Error = &'static str;

    fn try_from(number: u8) -> Result<Self, Self::Error> {
        let known = Self::ALL.get(usize::from(number));
        known.copied().ok_or("no quota that nodes share")
    }
}
