//! `policy`: what can be said of a policy file without a sidecar.

use std::{collections::BTreeMap, fmt::Write as _, path::Path, process::ExitCode};

use anyhow::Context as _;
use serde::Serialize;

use crate::{
    compliance::{
        Finding, Kept, PUSH_LATENESS, Preset, Standard, Term, document, lint_against, span, toml, total, worst_case,
    },
    config::{
        PolicyCommand, PolicyFileArgs, PolicyKeptArgs, PolicyLintArgs, StandardArg, parse_policies, parse_policy_file,
        read_policies,
    },
    state::Policy,
};

/// There are findings: as of grep and the linters, 1 is an answer.
const FINDINGS: u8 = 1;

/// Runs it. An error means that the file is bad.
pub fn run(command: &PolicyCommand) -> anyhow::Result<ExitCode> {
    match command {
        PolicyCommand::Lint(args) => lint(args),
        PolicyCommand::Document(args) => Ok(super::print(&document(&policies(&args.file)?, kept(args.kept)))),
        PolicyCommand::Show(args) => {
            let pages: Vec<_> = policies(args)?.values().map(toml).collect();
            Ok(super::print(&pages.join("\n")))
        }
        PolicyCommand::Presets => Ok(super::print(&presets())),
    }
}

fn policies(args: &PolicyFileArgs) -> anyhow::Result<BTreeMap<String, Policy>> {
    match &args.policy_file {
        None => parse_policies(""),
        Some(path) if path == Path::new("-") => {
            parse_policy_file(&super::read("--policy-file", path)?).context("standard input")
        }
        Some(path) => read_policies(path),
    }
}

/// Where the sessions of a policy will be.
fn kept(args: PolicyKeptArgs) -> fn(&Policy) -> Kept {
    if args.shared_store {
        Kept::shared
    } else {
        |_| Kept::Memory
    }
}

fn presets() -> String {
    let page = |preset: &Preset| {
        format!(
            "# {}\n# preset = \"{}\"\n{}",
            preset.about,
            preset.name,
            toml(&preset.policy())
        )
    };
    let pages: Vec<_> = Preset::ALL.iter().map(page).collect();
    pages.join("\n")
}

fn lint(args: &PolicyLintArgs) -> anyhow::Result<ExitCode> {
    let standards: Vec<_> = if args.standard.is_empty() {
        Standard::ALL.to_vec()
    } else {
        args.standard.iter().copied().map(standard).collect()
    };
    let kept = kept(args.kept);
    let reports: Vec<_> = policies(&args.file)?
        .iter()
        .map(|(name, policy)| Report {
            policy: name.clone(),
            findings: lint_against(policy, &standards),
            worst_case: worst_case(policy, kept(policy)),
        })
        .collect();
    let page = if args.json { json(&reports)? } else { text(&reports) };
    let printed = super::print(&page);
    let found = reports.iter().any(|report| !report.findings.is_empty());
    Ok(if found { ExitCode::from(FINDINGS) } else { printed })
}

/// What is said of one policy.
struct Report {
    policy: String,
    findings: Vec<Finding>,
    worst_case: Vec<Term>,
}

fn standard(arg: StandardArg) -> Standard {
    match arg {
        StandardArg::NistAal1 => Standard::NistAal1,
        StandardArg::NistAal2 => Standard::NistAal2,
        StandardArg::NistAal3 => Standard::NistAal3,
        StandardArg::PciDss => Standard::PciDss,
        StandardArg::OwaspAsvs => Standard::OwaspAsvs,
        StandardArg::Wcag => Standard::Wcag,
    }
}

fn text(reports: &[Report]) -> String {
    let mut page = String::new();
    for report in reports {
        let _ = writeln!(page, "policy {}", report.policy);
        let _ = writeln!(
            page,
            "  worst case from the last input to refusal: {} (to a pushed end: {} more)",
            span(total(&report.worst_case)),
            span(PUSH_LATENESS)
        );
        for term in &report.worst_case {
            let _ = writeln!(
                page,
                "    {:>12}  {}: {}",
                span(term.duration),
                term.name,
                term.explanation
            );
        }
        let _ = match report.findings.len() {
            0 => writeln!(page, "  no findings"),
            1 => writeln!(page, "  1 finding"),
            many => writeln!(page, "  {many} findings"),
        };
        for finding in &report.findings {
            let _ = writeln!(page, "    {}: {}: {}", finding.source, finding.key, finding.problem);
        }
    }
    page
}

#[derive(Serialize)]
struct JsonReport<'a> {
    policy: &'a str,
    worst_case_seconds: f64,
    push_lateness_seconds: f64,
    worst_case: Vec<JsonTerm<'a>>,
    findings: Vec<JsonFinding<'a>>,
}

#[derive(Serialize)]
struct JsonTerm<'a> {
    name: &'a str,
    seconds: f64,
    explanation: &'a str,
}

#[derive(Serialize)]
struct JsonFinding<'a> {
    source: &'a str,
    key: &'a str,
    problem: &'a str,
}

fn json(reports: &[Report]) -> anyhow::Result<String> {
    let reports: Vec<_> = reports
        .iter()
        .map(|report| JsonReport {
            policy: &report.policy,
            worst_case_seconds: total(&report.worst_case).as_secs_f64(),
            push_lateness_seconds: PUSH_LATENESS.as_secs_f64(),
            worst_case: report.worst_case.iter().map(term).collect(),
            findings: report.findings.iter().map(finding).collect(),
        })
        .collect();
    Ok(serde_json::to_string_pretty(&reports)?)
}

fn term(term: &Term) -> JsonTerm<'_> {
    JsonTerm {
        name: &term.name,
        seconds: term.duration.as_secs_f64(),
        explanation: &term.explanation,
    }
}

fn finding(finding: &Finding) -> JsonFinding<'_> {
    JsonFinding {
        source: &finding.source,
        key: &finding.key,
        problem: &finding.problem,
    }
}
