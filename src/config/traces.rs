//! Whether calls are traced, as OpenTelemetry's own variables say
//! (<https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>). Those that are not read here its library reads.

use std::path::PathBuf;

use anyhow::{Context as _, bail};

use crate::files;

/// Where spans go.
#[derive(Debug, PartialEq, Eq)]
pub struct TraceConfig {
    /// The collector's gRPC endpoint.
    pub endpoint: String,
    /// Certificates, in PEM, of authorities to trust beside the system's.
    pub ca: Option<Vec<u8>>,
    /// Whether a caller's `traceparent` is followed.
    pub follow_callers: bool,
    /// The name of this service, unless the variables say it.
    pub service_name: Option<&'static str>,
}

impl TraceConfig {
    /// Reads the variables. Without an endpoint nothing is traced.
    pub(super) fn resolve(variable: impl Fn(&str) -> Option<String>) -> anyhow::Result<Option<Self>> {
        // An empty one is as good as none.
        let said = |name: &str| variable(name).filter(|value| !value.is_empty());
        // Of traces in particular, or of all signals.
        let about = |what: &str| {
            let own = format!("OTEL_EXPORTER_OTLP_TRACES_{what}");
            said(&own).map(|value| (own, value)).or_else(|| {
                let general = format!("OTEL_EXPORTER_OTLP_{what}");
                said(&general).map(|value| (general, value))
            })
        };
        if said("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return Ok(None);
        }
        match said("OTEL_TRACES_EXPORTER").as_deref() {
            None | Some("otlp") => {}
            Some("none") => return Ok(None),
            Some(other) => bail!("OTEL_TRACES_EXPORTER must be otlp or none, not {other:?}"),
        }
        let Some((name, endpoint)) = about("ENDPOINT") else {
            return Ok(None);
        };
        let url = http::Uri::try_from(endpoint.as_str()).ok();
        let scheme = url.as_ref().and_then(http::Uri::scheme_str);
        if !matches!(scheme, Some("http" | "https")) || url.as_ref().and_then(http::Uri::host).is_none() {
            bail!("{name} must be a URL of a collector like http://127.0.0.1:4317");
        }
        if let Some((name, protocol)) = about("PROTOCOL")
            && protocol != "grpc"
        {
            bail!(
                "{name} must be grpc, not {protocol:?}: give the collector's endpoint for gRPC, most often port 4317"
            );
        }
        let ca = about("CERTIFICATE").map(|(name, path)| {
            let path = PathBuf::from(path);
            files::read(&path).with_context(|| format!("{name}: {} cannot be read", path.display()))
        });
        let named = said("OTEL_SERVICE_NAME").is_some()
            || said("OTEL_RESOURCE_ATTRIBUTES")
                .is_some_and(|all| all.split(',').any(|pair| pair.trim().starts_with("service.name=")));
        Ok(Some(Self {
            endpoint,
            ca: ca.transpose()?,
            follow_callers: said("OTEL_PROPAGATORS")
                .is_none_or(|names| names.split(',').any(|name| name.trim() == "tracecontext")),
            service_name: (!named).then_some("session-sidecar"),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(variables: &[(&str, &str)]) -> anyhow::Result<Option<TraceConfig>> {
        TraceConfig::resolve(|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317");

    #[test]
    fn nothing_is_traced_unless_an_endpoint_says_where_to() {
        for off in [
            &[][..],
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", ""), ("OTEL_SERVICE_NAME", "shop")],
            &[ENDPOINT, ("OTEL_SDK_DISABLED", "True")],
            &[ENDPOINT, ("OTEL_TRACES_EXPORTER", "none")],
        ] {
            assert_eq!(resolve(off).unwrap(), None, "{off:?}");
        }
    }

    #[test]
    fn what_is_said_of_traces_wins() {
        let own = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://traces:4317");
        let config = resolve(&[ENDPOINT, own, ("OTEL_PROPAGATORS", "b3, baggage")])
            .unwrap()
            .unwrap();
        assert_eq!(config.endpoint, own.1);
        assert!(!config.follow_callers);
        assert_eq!(config.service_name, Some("session-sidecar"));
        let config = resolve(&[
            ENDPOINT,
            ("OTEL_PROPAGATORS", "tracecontext,baggage"),
            ("OTEL_SERVICE_NAME", "shop"),
        ]);
        let config = config.unwrap().unwrap();
        assert!(config.follow_callers);
        assert_eq!(config.service_name, None);
        let attributes = ("OTEL_RESOURCE_ATTRIBUTES", "a=b, service.name=shop");
        assert_eq!(resolve(&[ENDPOINT, attributes]).unwrap().unwrap().service_name, None);
    }

    #[test]
    fn what_is_wrong_is_said_by_its_name() {
        for (bad, told) in [
            (
                ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "collector:4317"),
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT must be a URL",
            ),
            (
                ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
                "OTEL_EXPORTER_OTLP_PROTOCOL must be grpc",
            ),
            (
                ("OTEL_TRACES_EXPORTER", "zipkin"),
                "OTEL_TRACES_EXPORTER must be otlp or none",
            ),
            (
                ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/none/such"),
                "/none/such cannot be read",
            ),
        ] {
            let error = format!("{:#}", resolve(&[ENDPOINT, bad]).unwrap_err());
            assert!(error.contains(told), "{error}");
        }
    }
}
