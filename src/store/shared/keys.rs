//! Which keys a namespace has, told by their fingerprints, and whom it lets in. While its key is changed there are two: one is its
//! own, under which sessions begin, the other is accepted. Sidecars that know both may differ in which is which; one that knows a
//! single key must have the namespace's own.

use std::fmt;

/// What identifies the keys of a namespace, or of a sidecar, without telling them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprints {
    /// The key under which sessions begin.
    pub own: String,
    /// The one that is accepted beside it.
    pub other: Option<String>,
}

impl Fingerprints {
    /// Those of master keys.
    #[must_use]
    pub fn of(own: &[u8], other: Option<&[u8]>) -> Self {
        Self {
            own: fingerprint(own),
            other: other.map(fingerprint),
        }
    }

    /// Whether a sidecar with these keys may come into a namespace with those.
    #[must_use]
    pub fn may_enter(&self, namespace: &Self) -> bool {
        let exchanged = self.other.as_ref() == Some(&namespace.own) && namespace.other.as_ref() == Some(&self.own);
        self.own == namespace.own || exchanged
    }

    /// What to do about a sidecar with these keys that may not come into a namespace with those.
    #[must_use]
    pub fn advice(&self, namespace: &Self) -> &'static str {
        if namespace.other.as_ref() == Some(&self.own) {
            "the namespace's key is being changed: give both keys, as the other sidecars have them, with --store-key-file and \
             --store-other-key-file"
        } else if self.other.as_ref() == Some(&namespace.own) {
            "the other sidecars do not accept this key yet: give it to all of them as --store-other-key-file first, and make it \
             their --store-key-file after that"
        } else {
            "give the key file that the other sidecars have, or choose another --store-namespace"
        }
    }
}

/// For people: the fingerprints, in words.
impl fmt::Display for Fingerprints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.other {
            None => write!(f, "{}", self.own),
            Some(other) => write!(f, "{} (beside it {other} is accepted)", self.own),
        }
    }
}

fn fingerprint(master_key: &[u8]) -> String {
    let derived = blake3::derive_key("session-sidecar 2026 fingerprint of the store key", master_key);
    blake3::hash(&derived).to_hex()[..16].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(own: u8, other: Option<u8>) -> Fingerprints {
        let other = other.map(|byte| [byte; 32]);
        Fingerprints::of(&[own; 32], other.as_ref().map(<[u8; 32]>::as_slice))
    }

    const A: u8 = 1;
    const B: u8 = 2;
    const C: u8 = 3;

    /// The stages of a change of the key, in order.
    fn stages() -> [Fingerprints; 4] {
        [keys(A, None), keys(A, Some(B)), keys(B, Some(A)), keys(B, None)]
    }

    /// A namespace has the keys of the sidecar that started last: of one stage or of the next, either way round.
    #[test]
    fn sidecars_of_adjacent_stages_live_in_one_namespace() {
        for pair in stages().windows(2) {
            for sidecar in pair {
                for namespace in pair {
                    assert!(sidecar.may_enter(namespace), "{sidecar} into {namespace}");
                }
            }
        }
    }

    #[test]
    fn g5_a_sidecar_that_cannot_find_all_sessions_is_not_let_in() {
        let [only_a, _, b_and_a, only_b] = stages();
        assert!(!only_a.may_enter(&b_and_a) && !only_a.may_enter(&only_b));
        assert!(!only_b.may_enter(&keys(A, Some(B))) && !only_b.may_enter(&only_a));
        // A stage is not left out.
        assert!(!b_and_a.may_enter(&only_a));
        assert!(!keys(A, Some(B)).may_enter(&only_b));
        assert!(!b_and_a.may_enter(&keys(A, Some(C))));
        assert!(!keys(C, None).may_enter(&b_and_a));
        assert!(!keys(C, Some(B)).may_enter(&b_and_a));
    }

    #[test]
    fn who_is_not_let_in_is_told_what_to_do() {
        let [only_a, _, b_and_a, only_b] = stages();
        for (sidecar, namespace, word) in [
            (&only_a, &b_and_a, "give both keys"),
            (&b_and_a, &only_a, "do not accept this key yet"),
            (&only_a, &only_b, "that the other sidecars have"),
        ] {
            let advice = sidecar.advice(namespace);
            assert!(advice.contains(word), "{advice}");
        }
    }

    /// They are written into the store and into logs: a change would shut out every sidecar.
    #[test]
    fn a_fingerprint_stays_what_it_is() {
        assert_eq!(keys(A, None).own, "9e9a4eaa195474d7");
        assert_eq!(
            keys(B, Some(A)).to_string(),
            "b94b4b7c1e905be0 (beside it 9e9a4eaa195474d7 is accepted)"
        );
    }
}
