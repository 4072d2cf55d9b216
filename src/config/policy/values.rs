//! How values are written: durations, switches that may be a table, one text or several.

use std::{fmt, marker::PhantomData, time::Duration};

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, SeqAccess, Visitor, value},
};

use crate::compliance::Preset;

/// A duration such as "15m".
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Span(pub(super) Duration);

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let duration = humantime::parse_duration(&text);
        duration
            .map(Self)
            .map_err(|error| format!("{text:?} is not a duration like \"90s\" or \"15m\": {error}"))
    }
}

/// The name of a preset. What is unknown is told as the TOML reader tells it, so that it is answered with what was meant.
#[derive(Deserialize)]
#[serde(try_from = "String")]
pub(super) struct PresetName(pub(super) &'static Preset);

impl TryFrom<String> for PresetName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        Preset::named(&name).map(Self).ok_or_else(|| {
            let known: Vec<_> = Preset::ALL.iter().map(|preset| format!("`{}`", preset.name)).collect();
            format!("unknown preset `{name}`, expected one of {}", known.join(", "))
        })
    }
}

/// "off", "on", or a table.
pub(super) enum Switch<T> {
    /// "off".
    Off,
    /// "on": the usual one.
    On,
    /// A table.
    Table(T),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Switch<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Reader<T> {
            type Value = Switch<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"off\", \"on\" or a table")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                match text {
                    "off" => Ok(Switch::Off),
                    "on" => Ok(Switch::On),
                    _ => Err(E::unknown_variant(text, &["off", "on"])),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(value::MapAccessDeserializer::new(map)).map(Switch::Table)
            }
        }

        deserializer.deserialize_any(Reader(PhantomData))
    }
}

/// One text, or a list of them.
pub(super) struct Texts(pub(super) Vec<String>);

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Texts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a list of texts")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Texts(vec![text.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
                Vec::deserialize(value::SeqAccessDeserializer::new(seq)).map(Texts)
            }
        }

        deserializer.deserialize_any(Reader)
    }
}
