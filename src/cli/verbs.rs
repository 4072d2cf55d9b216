//! The verbs: each is one call.

use std::io::{self, Write as _};

use super::{actor, client, duration, labels, out, read, read_id, read_request_id, reason, show};
use crate::{
    config::{
        ActivityArg, CheckArgs, CreateArgs, EndArgs, ExtendArgs, HintArgs, HoldArgs, HoldKindArg, HoldNameArgs,
        ReleaseArgs, RotateArgs, TouchArgs, VisibilityArg,
    },
    rpc::proto::v1,
};

pub(super) async fn create(args: CreateArgs) -> anyhow::Result<()> {
    let labels = labels(args.labels)?;
    let own: Vec<_> = args.id_file.iter().map(|path| ("--id-file", path.as_path())).collect();
    let request = v1::CreateRequest {
        tenant: args.client.tenant,
        session_id: args.id_file.as_deref().map(read_id).transpose()?.unwrap_or_default(),
        subject: args.subject,
        policy: args.policy,
        labels,
        idle_timeout: args.idle_timeout.map(duration).transpose()?,
        absolute_timeout: args.absolute_timeout.map(duration).transpose()?,
        authenticated_ago: args.authenticated_ago.map(duration).transpose()?,
        idle_for: args.idle_for.map(duration).transpose()?,
        request_id: read_request_id(&args.request, &own)?,
        authentication_level: args.authentication_level,
    };
    let mut sessions = client::sessions(&args.client.target).await?;
    let answer = sessions.create(request).await.map_err(client::explain)?.into_inner();
    if args.client.json {
        return out(&show::json(&answer, "sessionsidecar.v1.CreateResponse")?);
    }
    let mut lines = vec![show::session(&answer.session.unwrap_or_default())];
    lines.extend(show::superseded(&answer.superseded_refs));
    tell(&lines);
    out(&answer.session_id)
}

pub(super) async fn touch(args: TouchArgs) -> anyhow::Result<()> {
    let activity = match args.activity {
        ActivityArg::Unspecified => v1::Activity::Unspecified,
        ActivityArg::User => v1::Activity::User,
        ActivityArg::Background => v1::Activity::Background,
    };
    let request = v1::TouchRequest {
        tenant: args.client.tenant,
        session_id: read_id(&args.id.id_file)?,
        activity: activity.into(),
        idle_for: args.idle_for.map(duration).transpose()?,
        hints: hints(args.hints),
    };
    let mut sessions = client::sessions(&args.client.target).await?;
    let answer = sessions.touch(request).await.map_err(client::explain)?.into_inner();
    if args.client.json {
        return out(&show::json(&answer, "sessionsidecar.v1.TouchResponse")?);
    }
    let status = show::status(&answer.status.clone().unwrap_or_default());
    let result = answer
        .result()
        .as_str_name()
        .trim_start_matches("TOUCH_RESULT_")
        .to_lowercase();
    out(&format!("{result} ({}); {status}", answer.rule))
}

pub(super) async fn check(args: CheckArgs) -> anyhow::Result<()> {
    let name = match args.session_ref {
        Some(reference) => v1::check_request::Name::SessionRef(reference),
        None => v1::check_request::Name::SessionId(read_id(&args.id.id_file)?),
    };
    let request = v1::CheckRequest {
        tenant: args.client.tenant,
        name: Some(name),
        sessions: Vec::new(),
    };
    let mut sessions = client::sessions(&args.client.target).await?;
    let answer = sessions.check(request).await.map_err(client::explain)?.into_inner();
    if args.client.json {
        return out(&show::json(&answer, "sessionsidecar.v1.CheckResponse")?);
    }
    out(&show::session(&answer.session.unwrap_or_default()))
}

pub(super) async fn extend(args: ExtendArgs) -> anyhow::Result<()> {
    let request = v1::ExtendRequest {
        tenant: args.client.tenant,
        session_id: read_id(&args.id.id_file)?,
        wanted_duration: args.wanted.map(duration).transpose()?,
        request_id: read_request_id(&args.request, &[("--id-file", &args.id.id_file)])?,
    };
    let mut sessions = client::sessions(&args.client.target).await?;
    let answer = sessions.extend(request).await.map_err(client::explain)?.into_inner();
    if args.client.json {
        return out(&show::json(&answer, "sessionsidecar.v1.ExtendResponse")?);
    }
    let status = show::status(&answer.status.clone().unwrap_or_default());
    let granted = show::span(answer.granted_duration.as_ref());
    let clamped = if answer.clamped_by() == v1::Limit::Absolute {
        ", cut short by the absolute deadline"
    } else {
        ""
    };
    out(&format!("extended by {granted}{clamped}; {status}"))
}

pub(super) async fn hold(args: HoldArgs) -> anyhow::Result<()> {
    let kind = match args.kind {
        HoldKindArg::Work => v1::HoldKind::Work,
        HoldKindArg::Presence => v1::HoldKind::Presence,
    };
    let HoldNameArgs { client, id, hold_id } = args.name;
    let request = v1::HoldRequest {
        tenant: client.tenant,
        session_id: read_id(&id.id_file)?,
        hold_id,
        kind: kind.into(),
        ttl: Some(duration(args.ttl)?),
        purpose: args.purpose,
    };
    let mut sessions = client::sessions(&client.target).await?;
    let answer = sessions.hold(request).await.map_err(client::explain)?.into_inner();
    if client.json {
        return out(&show::json(&answer, "sessionsidecar.v1.HoldResponse")?);
    }
    let status = show::status(&answer.status.clone().unwrap_or_default());
    let granted = show::span(answer.granted_ttl.as_ref());
    let what = if answer.created { "held" } else { "renewed" };
    let clamped = match answer.clamped_by() {
        v1::HoldClamp::Unspecified => "",
        v1::HoldClamp::MaxTtl => ", cut short by the policy's longest TTL",
        v1::HoldClamp::Budget => ", cut short by the policy's budget",
        v1::HoldClamp::Absolute => ", cut short by the absolute deadline",
    };
    out(&format!("{what} for {granted}{clamped}; {status}"))
}

pub(super) async fn release(args: ReleaseArgs) -> anyhow::Result<()> {
    let HoldNameArgs { client, id, hold_id } = args.name;
    let request = v1::ReleaseRequest {
        tenant: client.tenant,
        session_id: read_id(&id.id_file)?,
        hold_id,
    };
    let mut sessions = client::sessions(&client.target).await?;
    let answer = sessions.release(request).await.map_err(client::explain)?.into_inner();
    if client.json {
        return out(&show::json(&answer, "sessionsidecar.v1.ReleaseResponse")?);
    }
    let what = if answer.released { "released" } else { "no such hold" };
    out(&format!("{what}; {}", show::status(&answer.status.unwrap_or_default())))
}

pub(super) async fn rotate(args: RotateArgs) -> anyhow::Result<()> {
    let mut files = vec![("--id-file", args.id.id_file.as_path())];
    files.extend(args.new_id_file.iter().map(|path| ("--new-id-file", path.as_path())));
    let request_id = read_request_id(&args.request, &files)?;
    let new_id = args.new_id_file.as_deref();
    let new_id = new_id.map(|path| read("--new-id-file", path)).transpose()?;
    let request = v1::RotateRequest {
        tenant: args.client.tenant,
        session_id: read_id(&args.id.id_file)?,
        new_session_id: new_id.unwrap_or_default().trim_end_matches(['\r', '\n']).to_owned(),
        subject: args.subject,
        authenticated_ago: args.authenticated_ago.map(duration).transpose()?,
        authentication_level: args.authentication_level,
        request_id,
    };
    let mut sessions = client::sessions(&args.client.target).await?;
    let answer = sessions.rotate(request).await.map_err(client::explain)?.into_inner();
    if args.client.json {
        return out(&show::json(&answer, "sessionsidecar.v1.RotateResponse")?);
    }
    let mut lines = vec![show::session(&answer.session.unwrap_or_default())];
    lines.extend(show::superseded(&answer.superseded_refs));
    tell(&lines);
    out(&answer.session_id)
}

pub(super) async fn end(args: EndArgs) -> anyhow::Result<()> {
    let request = v1::EndRequest {
        tenant: args.client.tenant,
        session_id: read_id(&args.id.id_file)?,
        reason: reason(args.reason).into(),
        actor: actor(args.actor).into(),
        actor_id: args.actor_id,
        note: args.note,
        request_id: read_request_id(&args.request, &[("--id-file", &args.id.id_file)])?,
    };
    let mut sessions = client::sessions(&args.client.target).await?;
    let answer = sessions.end(request).await.map_err(client::explain)?.into_inner();
    if args.client.json {
        return out(&show::json(&answer, "sessionsidecar.v1.EndResponse")?);
    }
    let when = if answer.ended_now {
        "ended now"
    } else {
        "had ended before"
    };
    out(&format!("{when}: {}", show::end(&answer.end.unwrap_or_default())))
}

/// Hints, if there are any: without, other rules decide.
fn hints(args: HintArgs) -> Option<v1::TouchHints> {
    let visibility = match args.visibility {
        None => v1::PageVisibility::Unspecified,
        Some(VisibilityArg::Visible) => v1::PageVisibility::Visible,
        Some(VisibilityArg::Hidden) => v1::PageVisibility::Hidden,
    };
    let hints = v1::TouchHints {
        host: args.host.unwrap_or_default(),
        method: args.method.unwrap_or_default(),
        path: args.path.unwrap_or_default(),
        sec_fetch_user: args.sec_fetch_user.unwrap_or_default(),
        sec_fetch_mode: args.sec_fetch_mode.unwrap_or_default(),
        sec_fetch_dest: args.sec_fetch_dest.unwrap_or_default(),
        sec_purpose: args.sec_purpose.unwrap_or_default(),
        page_visibility: visibility.into(),
        input_report: args.input_report,
    };
    (hints != v1::TouchHints::default()).then_some(hints)
}

/// Says something to people: on standard error, since standard output has the id alone, so that a shell can keep it.
fn tell(lines: &[String]) {
    let _ = writeln!(io::stderr(), "{}", lines.join("\n"));
}
