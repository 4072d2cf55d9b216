//! Presets: defaults that meet a standard.

use std::{sync::Arc, time::Duration};

use crate::state::{AtSubjectCap, Limits, Policy, Unmatched, WorkLimits};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// 128 bits as base64url: OWASP ASVS 5.0 7.2.3.
const ID_OF_128_BITS: usize = 22;

/// Defaults under a name.
#[derive(Debug)]
pub struct Preset {
    /// The name.
    pub name: &'static str,
    /// The standard and what it asks.
    pub about: &'static str,
    idle_timeout: Duration,
    absolute_timeout: Duration,
    max_sessions_per_subject: Option<u32>,
    unmatched: Unmatched,
}

impl Preset {
    /// All presets.
    pub const ALL: [Self; 5] = [
        Self {
            name: "nist-aal1",
            about: "NIST SP 800-63B-4 §2.1.3: reauthentication after 30 days; no inactivity timeout is asked for, a \
                    day is given.",
            idle_timeout: DAY,
            absolute_timeout: Duration::from_secs(30 * 24 * 3600),
            max_sessions_per_subject: None,
            unmatched: Unmatched::Count,
        },
        Self {
            name: "nist-aal2",
            about: "NIST SP 800-63B-4 §2.2.3: reauthentication after 24 hours, or 1 hour of inactivity.",
            idle_timeout: HOUR,
            absolute_timeout: DAY,
            max_sessions_per_subject: None,
            unmatched: Unmatched::Ignore,
        },
        Self {
            name: "nist-aal3",
            about: "NIST SP 800-63B-4 §2.3.3: reauthentication after 12 hours, or 15 minutes of inactivity.",
            idle_timeout: Duration::from_secs(15 * 60),
            absolute_timeout: Duration::from_secs(12 * 3600),
            max_sessions_per_subject: None,
            unmatched: Unmatched::Ignore,
        },
        Self {
            name: "pci-dss-8.2.8",
            about: "PCI DSS 4.0.1 requirement 8.2.8: reauthentication after 15 minutes of inactivity. It sets no \
                    absolute limit; 12 hours are given.",
            idle_timeout: Duration::from_secs(15 * 60),
            absolute_timeout: Duration::from_secs(12 * 3600),
            max_sessions_per_subject: None,
            unmatched: Unmatched::Ignore,
        },
        Self {
            name: "owasp-high-value",
            about: "OWASP ASVS 5.0 V7, with the limits that the OWASP Session Management Cheat Sheet suggests for \
                    high-value applications: 5 minutes of inactivity, 4 hours in all; one session for each subject.",
            idle_timeout: Duration::from_secs(5 * 60),
            absolute_timeout: Duration::from_secs(4 * 3600),
            max_sessions_per_subject: Some(1),
            unmatched: Unmatched::Ignore,
        },
    ];

    /// The preset of a name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        static ALL: [Preset; 5] = Preset::ALL;
        ALL.iter().find(|preset| preset.name == name)
    }

    /// The policy that it is when nothing is overridden.
    #[must_use]
    pub fn policy(&self) -> Policy {
        Policy {
            limits: Arc::new(Limits {
                policy: self.name.into(),
                idle_timeout: self.idle_timeout,
                absolute_timeout: self.absolute_timeout,
                idle_points: [2 * MINUTE, MINUTE].into(),
                absolute_points: [10 * MINUTE, 2 * MINUTE].into(),
                unmatched: self.unmatched,
                // A hold keeps a session usable while nobody is there, which is what these limits are about.
                work: WorkLimits {
                    max_live: 0,
                    ..WorkLimits::default()
                },
                at_most: true,
                ..Limits::default()
            }),
            min_id_length: ID_OF_128_BITS,
            max_sessions_per_subject: self.max_sessions_per_subject,
            at_subject_cap: match self.max_sessions_per_subject {
                Some(_) => AtSubjectCap::EndOldest,
                None => AtSubjectCap::Refuse,
            },
        }
    }
}
