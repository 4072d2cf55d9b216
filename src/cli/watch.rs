//! `watch`: the stream, an event a line.

use super::{client, duration, out, read, show};
use crate::{config::WatchArgs, rpc::proto::v1};

/// Prints what comes until the stream ends.
pub(super) async fn watch(args: WatchArgs) -> anyhow::Result<()> {
    use v1::{session_name::Name, watch_scope::Scope};

    let names = |names: Vec<Name>| {
        let names = names
            .into_iter()
            .map(|name| v1::SessionName { name: Some(name) })
            .collect();
        Scope::Sessions(v1::SessionNames { names })
    };
    let scope = if let Some(path) = &args.id_file {
        let text = read("--id-file", path)?;
        let ids = text.lines().map(str::trim).filter(|id| !id.is_empty());
        names(ids.map(|id| Name::SessionId(id.to_owned())).collect())
    } else if !args.refs.is_empty() {
        names(args.refs.into_iter().map(Name::SessionRef).collect())
    } else if let Some(subject) = args.subject {
        Scope::Subject(subject)
    } else if args.whole_tenant {
        Scope::WholeTenant(true)
    } else {
        Scope::Everything(true)
    };
    let tenant = if matches!(scope, Scope::Everything(_)) {
        String::new()
    } else {
        args.client.tenant
    };
    let request = v1::WatchExpiryRequest {
        scope: Some(v1::WatchScope {
            tenant,
            scope: Some(scope),
        }),
        kinds: Vec::new(),
        resume_token: args.resume_token,
        heartbeat_interval: args.heartbeat.map(duration).transpose()?,
        include_initial_state: args.initial_state,
    };
    let mut sessions = client::sessions(&args.client.target).await?;
    let mut stream = sessions
        .watch_expiry(request)
        .await
        .map_err(client::explain)?
        .into_inner();
    while let Some(message) = stream.message().await.map_err(client::explain)? {
        let heartbeat = matches!(message.message, Some(v1::watch_expiry_response::Message::Heartbeat(_)));
        if heartbeat && !args.show_heartbeats {
            continue;
        }
        if args.client.json {
            out(&show::json(&message, "sessionsidecar.v1.WatchExpiryResponse")?)?;
        } else {
            out(&show::message(&message))?;
        }
    }
    Ok(())
}
