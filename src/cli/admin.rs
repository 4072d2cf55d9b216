//! The admin commands: tables for people, or JSON.

use super::{
    actor, client, labels, out, read, read_id, reason, show,
    table::{cell, table},
    warn,
};
use crate::{
    config::{AdminArgs, EndSessionsArgs, ExplainArgs, FilterArgs, ListArgs, PoliciesArgs, StateArg},
    rpc::proto::v1,
};

/// The largest page that the API gives.
const PAGE: usize = 1000;

pub(super) async fn list(args: ListArgs) -> anyhow::Result<()> {
    let ListArgs { admin, filter, .. } = args;
    let filter = self::filter(&admin, filter)?;
    let mut client = client::admin(&admin.client.target).await?;
    let mut all = v1::ListSessionsResponse {
        next_page_token: args.page_token,
        ..Default::default()
    };
    loop {
        let request = v1::ListSessionsRequest {
            filter: Some(filter.clone()),
            page_size: Some(i32::try_from((args.limit - all.sessions.len()).min(PAGE))?),
            page_token: all.next_page_token,
            actor_id: admin.actor_id.clone(),
        };
        let page = client
            .list_sessions(request)
            .await
            .map_err(client::explain)?
            .into_inner();
        all.sessions.extend(page.sessions);
        all.next_page_token = page.next_page_token;
        if all.next_page_token.is_empty() || all.sessions.len() >= args.limit {
            break;
        }
    }
    if admin.client.json {
        return out(&show::json(&all, "sessionsidecar.v1.ListSessionsResponse")?);
    }
    let rows: Vec<_> = all.sessions.iter().map(row).collect();
    out(&table(
        &[
            "REF",
            "STATE",
            "SUBJECT",
            "POLICY",
            "LAST ACTIVITY",
            "ENDS / ENDED",
            "WHY",
            "LABELS",
        ],
        &rows,
    ))?;
    if !all.next_page_token.is_empty() {
        out(&format!(
            "\nthere are more: --limit N, or --page-token {}",
            all.next_page_token
        ))?;
    }
    Ok(())
}

fn row(session: &v1::Session) -> Vec<String> {
    let status = session.status.clone().unwrap_or_default();
    let labels: Vec<_> = session
        .labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let (when, why) = match &session.end {
        Some(end) => (
            show::time(end.end_time.as_ref()),
            short(end.reason().as_str_name(), "END_REASON_"),
        ),
        None => {
            let enforced = if status.observed_only { ", if enforced" } else { "" };
            (
                format!("in {}{enforced}", show::span(status.expires_in.as_ref())),
                show::limit(status.limit()).to_owned(),
            )
        }
    };
    vec![
        status.session_ref.clone(),
        short(status.state().as_str_name(), "SESSION_STATE_"),
        cell(&session.subject),
        cell(&session.policy),
        show::time(session.last_activity_time.as_ref()),
        when,
        why,
        cell(labels.join(" ")),
    ]
}

pub(super) async fn end_sessions(args: EndSessionsArgs) -> anyhow::Result<()> {
    use v1::session_name::Name;

    let EndSessionsArgs { admin, filter, .. } = args;
    let mut except: Vec<_> = args.except_refs.into_iter().map(Name::SessionRef).collect();
    if let Some(path) = &args.except_id_file {
        let text = read("--except-id-file", path)?;
        let ids = text.lines().map(str::trim).filter(|id| !id.is_empty());
        except.extend(ids.map(|id| Name::SessionId(id.to_owned())));
    }
    let request = v1::EndSessionsRequest {
        filter: Some(self::filter(&admin, filter)?),
        except: except
            .into_iter()
            .map(|name| v1::SessionName { name: Some(name) })
            .collect(),
        dry_run: args.dry_run,
        reason: reason(args.reason).into(),
        actor: actor(args.actor).into(),
        actor_id: admin.actor_id,
        note: args.note,
        whole_tenant: args.whole_tenant,
    };
    let mut client = client::admin(&admin.client.target).await?;
    let answer = client
        .end_sessions(request)
        .await
        .map_err(client::explain)?
        .into_inner();
    if admin.client.json {
        return out(&show::json_with_zeros(
            &answer,
            "sessionsidecar.v1.EndSessionsResponse",
        )?);
    }
    let sessions = |count: u64| format!("{count} session{}", if count == 1 { "" } else { "s" });
    if args.dry_run {
        out(&format!("{} would be ended", sessions(answer.matched_count)))?;
    } else {
        let (ended, matched) = (answer.ended_count, answer.matched_count);
        let others = if ended < matched {
            format!("; {} ended otherwise meanwhile", matched - ended)
        } else {
            String::new()
        };
        out(&format!("{} ended{others}", sessions(ended)))?;
    }
    for reference in &answer.session_refs {
        out(reference)?;
    }
    let told = answer.session_refs.len() as u64;
    if told < answer.matched_count {
        out(&format!("and {} more", answer.matched_count - told))?;
    }
    Ok(())
}

pub(super) async fn explain(args: ExplainArgs) -> anyhow::Result<()> {
    use v1::explain_session_request::Target;

    let target = match (args.session_ref, args.subject) {
        (Some(reference), _) => Target::SessionRef(reference),
        (None, Some(subject)) => Target::SubjectPeriod(v1::SubjectPeriod {
            subject,
            start_time: args.from.map(|time| std::time::SystemTime::from(time).into()),
            end_time: args.to.map(|time| std::time::SystemTime::from(time).into()),
        }),
        (None, None) => Target::SessionId(read_id(args.id_file.as_deref().unwrap_or("-".as_ref()))?),
    };
    let request = v1::ExplainSessionRequest {
        tenant: args.admin.client.tenant,
        target: Some(target),
        actor_id: args.admin.actor_id,
    };
    let mut client = client::admin(&args.admin.client.target).await?;
    let answer = client
        .explain_session(request)
        .await
        .map_err(client::explain)?
        .into_inner();
    if args.admin.client.json {
        return out(&show::json(&answer, "sessionsidecar.v1.ExplainSessionResponse")?);
    }
    if answer.explanations.is_empty() {
        return out(
            "nothing is known of it: it never existed here, or ended longer ago than is remembered (try --from-log)",
        );
    }
    for (place, explanation) in answer.explanations.iter().enumerate() {
        if place > 0 {
            out("")?;
        }
        out(&explanation_text(explanation))?;
    }
    if answer.truncated {
        out("\nthere are more; ask for a shorter time (--from, --to)")?;
    }
    Ok(())
}

fn explanation_text(explanation: &v1::SessionExplanation) -> String {
    let session = explanation.session.clone().unwrap_or_default();
    let mut lines = vec![
        explanation.summary.clone(),
        String::new(),
        format!("  {}", show::session(&session)),
    ];
    let mut history = vec![vec![show::time(session.create_time.as_ref()), "created".to_owned()]];
    if explanation.history_dropped_count > 0 {
        let dropped = format!("{} older entries were dropped", explanation.history_dropped_count);
        history.push(vec!["…".to_owned(), dropped]);
    }
    history.extend(explanation.history.iter().map(|entry| {
        let what = entry.entry.as_ref().map_or_else(String::new, happened);
        vec![show::time(entry.time.as_ref()), what]
    }));
    lines.push(String::new());
    lines.push(indented(&table(&["TIME", "WHAT HAPPENED"], &history)));
    if !explanation.tallies.is_empty() {
        let rows: Vec<_> = explanation
            .tallies
            .iter()
            .map(|tally| {
                vec![
                    tally.rule.clone(),
                    if tally.counted { "counted" } else { "ignored" }.to_owned(),
                    tally.touch_count.to_string(),
                    show::time(tally.first_time.as_ref()),
                    show::time(tally.last_time.as_ref()),
                ]
            })
            .collect();
        lines.push(String::new());
        lines.push(indented(&table(&["RULE", "RESULT", "TOUCHES", "FIRST", "LAST"], &rows)));
    }
    lines.join("\n")
}

fn happened(entry: &v1::history_entry::Entry) -> String {
    use v1::history_entry::Entry;

    let watchers = |count: u32| format!("{count} watcher{}", if count == 1 { "" } else { "s" });
    match entry {
        Entry::Warning(warning) => format!(
            "warned {} before the {} deadline at {}: sent to {}",
            show::span(warning.point.as_ref()),
            show::limit(warning.limit()).to_lowercase(),
            show::time(warning.expire_time.as_ref()),
            watchers(warning.watcher_count)
        ),
        Entry::Cleared(cleared) => format!(
            "{} warning withdrawn ({}), would end at {}: sent to {}",
            show::limit(cleared.limit()).to_lowercase(),
            short(cleared.cause().as_str_name(), "CLEARED_CAUSE_").to_lowercase(),
            show::time(cleared.expire_time.as_ref()),
            watchers(cleared.watcher_count)
        ),
        Entry::Extended(extended) => {
            let clamped = if extended.clamped_by() == v1::Limit::Absolute {
                ", cut short by the absolute deadline"
            } else {
                ""
            };
            format!(
                "extended by {}{clamped}",
                show::span(extended.granted_duration.as_ref())
            )
        }
        Entry::HoldStarted(hold) => {
            let purpose = if hold.purpose.is_empty() {
                String::new()
            } else {
                format!(" ({})", hold.purpose)
            };
            format!(
                "{} hold {} began{purpose}, for {}",
                short(hold.kind().as_str_name(), "HOLD_KIND_"),
                hold.hold_id,
                show::span(hold.granted_ttl.as_ref())
            )
        }
        Entry::HoldEnded(hold) => format!(
            "{} hold {} {}, renewed {} times",
            short(hold.kind().as_str_name(), "HOLD_KIND_"),
            hold.hold_id,
            if hold.released { "was released" } else { "lapsed" },
            hold.renewal_count
        ),
        Entry::Rotated(rotated) => {
            let anew = if rotated.reauthenticated {
                ", the person authenticated anew"
            } else {
                ""
            };
            if rotated.is_successor {
                format!("got a new id and goes on as {}{anew}", rotated.other_ref)
            } else {
                format!("took the place of {}{anew}", rotated.other_ref)
            }
        }
        Entry::PolicyChanged(changed) => format!("revision {} of its policy reached it", changed.policy_revision),
        Entry::UnenforcedEnd(end) => format!(
            "would have ended ({}) if its policy were enforced",
            short(end.reason().as_str_name(), "END_REASON_")
        ),
        Entry::Ended(ended) => format!(
            "ended: {}: sent to {}",
            show::end(&ended.end.clone().unwrap_or_default()),
            watchers(ended.watcher_count)
        ),
    }
}

pub(super) async fn policies(args: PoliciesArgs) -> anyhow::Result<()> {
    let request = v1::ListPoliciesRequest {
        actor_id: args.admin.actor_id,
    };
    let mut client = client::admin(&args.admin.client.target).await?;
    let answer = client
        .list_policies(request)
        .await
        .map_err(client::explain)?
        .into_inner();
    if args.admin.client.json {
        return out(&show::json(&answer, "sessionsidecar.v1.ListPoliciesResponse")?);
    }
    if !answer.policy_file_problem.is_empty() {
        let problem = &answer.policy_file_problem;
        warn(&format!("the policy file as it is now is not in force: {problem}"));
    }
    if args.toml {
        let pages: Vec<_> = answer.policies.iter().map(|policy| policy.toml.trim_end()).collect();
        return out(&pages.join("\n\n"));
    }
    let rows: Vec<_> = answer
        .policies
        .iter()
        .map(|policy| {
            vec![
                policy.name.clone(),
                policy.revision.to_string(),
                match (policy.active, policy.enforced) {
                    (true, true) => "in force".to_owned(),
                    (true, false) => "observed only".to_owned(),
                    (false, _) => "removed, lives on for its sessions".to_owned(),
                },
                policy
                    .idle_timeout
                    .as_ref()
                    .map_or_else(|| "-".to_owned(), |idle| show::span(Some(idle))),
                show::span(policy.absolute_timeout.as_ref()),
                cell(
                    policy
                        .worst_case_duration
                        .as_ref()
                        .map_or_else(String::new, |worst| show::span(Some(worst))),
                ),
                policy.findings.len().to_string(),
            ]
        })
        .collect();
    out(&table(
        &[
            "POLICY",
            "REVISION",
            "STATE",
            "IDLE",
            "ABSOLUTE",
            "WORST CASE",
            "FINDINGS",
        ],
        &rows,
    ))?;
    for policy in &answer.policies {
        for other in &policy.elsewhere {
            let has = if other.missing {
                "do not have it".to_owned()
            } else {
                format!("have other content of it, revision {}", other.revision)
            };
            out(&format!(
                "\n{}: {} other sidecars {has}",
                policy.name, other.sidecar_count
            ))?;
        }
        for finding in &policy.findings {
            out(&format!(
                "\n{}: {}: {}\n  {}",
                policy.name, finding.key, finding.source, finding.problem
            ))?;
        }
    }
    Ok(())
}

pub(super) async fn stats(args: AdminArgs) -> anyhow::Result<()> {
    let request = v1::GetStatsRequest {
        tenant: args.client.tenant,
        actor_id: args.actor_id,
    };
    let mut client = client::admin(&args.client.target).await?;
    let answer = client.get_stats(request).await.map_err(client::explain)?.into_inner();
    if args.client.json {
        return out(&show::json_with_zeros(&answer, "sessionsidecar.v1.GetStatsResponse")?);
    }
    let mut rows: Vec<Vec<String>> = Vec::new();
    for count in &answer.states {
        let state = short(count.state().as_str_name(), "SESSION_STATE_");
        rows.push(vec![state, count.session_count.to_string()]);
    }
    for count in answer.reasons.iter().filter(|count| count.session_count > 0) {
        let reason = short(count.reason().as_str_name(), "END_REASON_");
        rows.push(vec![format!("  {reason}"), count.session_count.to_string()]);
    }
    for (what, count) in [
        ("ghosts (live, and only ignored traffic)", answer.ghost_session_count),
        ("working (a WORK hold lives)", answer.working_session_count),
        ("would have ended if enforced", answer.unenforced_end_count),
    ] {
        rows.push(vec![what.to_owned(), count.to_string()]);
    }
    out(&table(&["SESSIONS", "COUNT"], &rows))
}

fn filter(admin: &AdminArgs, filter: FilterArgs) -> anyhow::Result<v1::SessionFilter> {
    let state = |state: StateArg| match state {
        StateArg::Active => v1::SessionState::Active,
        StateArg::Expiring => v1::SessionState::Expiring,
        StateArg::Ended => v1::SessionState::Ended,
    };
    Ok(v1::SessionFilter {
        tenant: admin.client.tenant.clone(),
        subject: filter.subject,
        states: filter.states.into_iter().map(|wanted| state(wanted).into()).collect(),
        labels: labels(filter.labels)?,
        policy: filter.policy,
    })
}

fn short(name: &str, prefix: &str) -> String {
    name.trim_start_matches(prefix).to_owned()
}

pub(super) fn indented(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(|line| format!("  {line}")).collect();
    lines.join("\n")
}
