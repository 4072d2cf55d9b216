//! The table of all options, made from the code that reads them.

use std::fmt::Write as _;

use clap::{Arg, Command, CommandFactory as _};

use super::{Cli, policy};

/// All flags, variables and policy keys as Markdown.
#[must_use]
pub fn options_markdown() -> String {
    let mut page = String::from(
        "# Options\n\nThis page is made by `session-sidecar options`; a test compares it with the code.\n\
         A flag wins over its variable. Durations are written like `90s`, `15m`, `1h 30m`.\n",
    );
    let mut cli = Cli::command();
    cli.build();
    for command in shown(&cli) {
        if command.has_subcommands() {
            for nested in shown(command) {
                write_command(
                    &mut page,
                    &format!("{} {}", command.get_name(), nested.get_name()),
                    nested,
                );
            }
        } else {
            write_command(&mut page, command.get_name(), command);
        }
    }
    page.push_str(
        "\n## Policy file\n\nTOML; each policy is a table `[policy.NAME]`, and an unknown key is refused.\n\n",
    );
    page.push_str("| Key | Default | What it says |\n|---|---|---|\n");
    for (key, default, help) in policy::KEYS {
        let _ = writeln!(page, "| `{key}` | {default} | {help} |");
    }
    page.push_str(
        "\n### Rules\n\nEach is a table `[[policy.NAME.rules]]`. The first one that matches decides; all keys that \
         are set must match.\n\n",
    );
    page.push_str("| Key | Default | What it says |\n|---|---|---|\n");
    for (key, default, help) in policy::RULE_KEYS {
        let _ = writeln!(page, "| `{key}` | {default} | {help} |");
    }
    page.push_str("\n### The HTTP door\n\nThe table `[door]` of the same file: see [http-door.md](http-door.md).\n\n");
    page.push_str("| Key | Default | What it says |\n|---|---|---|\n");
    for (key, default, help) in policy::DOOR_KEYS {
        let _ = writeln!(page, "| `{key}` | {default} | {help} |");
    }
    page.push_str(
        "\nEach route is a table `[[door.routes]]`. The first one that matches decides; it is public, passive, or has a policy.\n\n",
    );
    page.push_str("| Key | Default | What it says |\n|---|---|---|\n");
    for (key, default, help) in policy::ROUTE_KEYS {
        let _ = writeln!(page, "| `{key}` | {default} | {help} |");
    }
    page.push_str(
        "\n### Callers\n\nEach is a table `[[callers]]` of the same file: up to 256. The first that a call fits is its caller, and may do what its \
         entry says in place of what the listener does: see [operating.md](operating.md#who-may-do-what).\n\n",
    );
    page.push_str("| Key | Default | What it says |\n|---|---|---|\n");
    for (key, default, help) in policy::CALLER_KEYS {
        let _ = writeln!(page, "| `{key}` | {default} | {help} |");
    }
    page
}

fn shown(command: &Command) -> impl Iterator<Item = &Command> {
    let all = command.get_subcommands();
    all.filter(|command| !command.is_hide_set() && command.get_name() != "help")
}

fn write_command(page: &mut String, name: &str, command: &Command) {
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let _ = writeln!(page, "\n## `{name}`\n\n{about}\n");
    if name == "check-config" {
        page.push_str("Takes what `serve` takes.\n");
        return;
    }
    let args = command.get_arguments();
    let args: Vec<_> = args
        .filter(|arg| !matches!(arg.get_id().as_str(), "help" | "version"))
        .collect();
    if args.is_empty() {
        page.push_str("Takes no flags.\n");
        return;
    }
    page.push_str("| Flag | Variable | Default | What it says |\n|---|---|---|---|\n");
    for arg in args {
        let _ = writeln!(
            page,
            "| {} | {} | {} | {} |",
            flag(arg),
            arg.get_env()
                .map(|name| format!("`{}`", name.to_string_lossy()))
                .unwrap_or_default(),
            default(arg),
            help(arg),
        );
    }
}

fn flag(arg: &Arg) -> String {
    let value = if arg.get_action().takes_values() {
        let names = arg.get_value_names().unwrap_or_default();
        names.iter().map(|name| format!(" {name}")).collect()
    } else {
        String::new()
    };
    match arg.get_long() {
        Some(long) => format!("`--{long}{value}`"),
        None => format!("`{}`", value.trim()),
    }
}

fn default(arg: &Arg) -> String {
    let values: Vec<_> = arg
        .get_default_values()
        .iter()
        .map(|value| value.to_string_lossy())
        .collect();
    match values.join(" ") {
        none if none.is_empty() || !arg.get_action().takes_values() => String::new(),
        value => format!("`{value}`"),
    }
}

fn help(arg: &Arg) -> String {
    let help = arg.get_long_help().or_else(|| arg.get_help());
    let mut text = help
        .map(ToString::to_string)
        .unwrap_or_default()
        .replace('\n', " ")
        .replace('|', "\\|");
    let possible = arg.get_possible_values();
    if arg.get_action().takes_values() && !possible.is_empty() {
        let names: Vec<_> = possible.iter().map(|value| format!("`{}`", value.get_name())).collect();
        let _ = write!(text, " One of {}.", names.join(", "));
    }
    text
}
