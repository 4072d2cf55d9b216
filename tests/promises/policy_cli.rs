//! `session-sidecar policy`: what it prints, and its exit codes.

use std::{
    io::Write as _,
    process::{Output, Stdio},
};

use session_sidecar::config::parse_policies;

use crate::support::program;

/// Runs `policy` with a policy file on standard input.
fn policy(args: &[&str], file: &str) -> (i32, String, String) {
    let mut child = program()
        .arg("policy")
        .args(args)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    // Commands that do not read it may be gone already.
    let _ = child.stdin.take().expect("a pipe").write_all(file.as_bytes());
    let Output { status, stdout, stderr } = child.wait_with_output().expect("it ends");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (status.code().expect("a code"), text(stdout), text(stderr))
}

const STRICT: &str = "[policy.desk]\npreset = \"owasp-high-value\"\n";

#[test]
fn lint_answers_with_its_exit_code() {
    let (code, out, _) = policy(&["lint", "--policy-file", "-"], STRICT);
    assert_eq!(code, 0, "{out}");
    assert!(out.contains("worst case from the last input to refusal: 5m"), "{out}");
    assert!(out.contains("no findings"), "{out}");
    let (code, out, _) = policy(&["lint"], "");
    assert_eq!(code, 1);
    assert!(out.contains("PCI DSS 4.0.1 req. 8.2.8: unmatched:"), "{out}");
    let (code, _, err) = policy(&["lint", "--policy-file", "-"], "[policy.desk]\nidle_timout = \"1m\"");
    assert_eq!(code, 64);
    assert!(
        err.contains("line 2") && err.contains("did you mean `idle_timeout`?"),
        "{err}"
    );
    let (code, ..) = policy(&["lint", "--policy-file", "/nowhere/policy.toml"], "");
    assert_eq!(code, 64);
}

#[test]
fn lint_looks_at_the_standards_that_are_asked_for() {
    let file = "[policy.desk]\npreset = \"nist-aal2\"\n";
    let (code, ..) = policy(&["lint", "--policy-file", "-", "--standard", "nist-aal2,wcag"], file);
    assert_eq!(code, 0);
    let (code, out, _) = policy(&["lint", "--policy-file", "-", "--standard", "nist-aal3"], file);
    assert_eq!(code, 1);
    assert!(
        out.contains("NIST SP 800-63B-4 §2.3.3 (AAL3): idle_timeout: idle_timeout is 1h;"),
        "{out}"
    );
}

#[test]
fn lint_has_json_for_pipelines() {
    let (code, out, _) = policy(&["lint", "--json"], "");
    assert_eq!(code, 1);
    let reports: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(reports[0]["policy"], "default");
    assert_eq!(reports[0]["worst_case_seconds"], 43_200.0);
    assert_eq!(reports[0]["worst_case"][0]["name"], "idle_timeout");
    let findings = reports[0]["findings"].as_array().expect("findings");
    assert!(
        findings
            .iter()
            .all(|finding| finding["source"].is_string() && finding["problem"].is_string())
    );
}

#[test]
fn show_and_presets_print_policy_files() {
    let (code, out, _) = policy(&["show", "--policy-file", "-"], STRICT);
    assert_eq!(code, 0);
    let shown = parse_policies(&out).expect("a policy file");
    assert_eq!(shown, parse_policies(STRICT).expect("policies"));
    let (code, out, _) = policy(&["presets"], "");
    assert_eq!(code, 0);
    assert_eq!(parse_policies(&out).expect("a policy file").len(), 5);
}

#[test]
fn document_is_a_page() {
    let (code, out, _) = policy(&["document", "--policy-file", "-"], STRICT);
    assert_eq!(code, 0);
    assert!(
        out.starts_with("# Session limits\n") && out.contains("## Policy desk"),
        "{out}"
    );
}
