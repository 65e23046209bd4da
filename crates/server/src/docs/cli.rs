//! `cli.md`: every command, from the parser itself.

use std::fmt::Write as _;

use clap::{Arg, Command, CommandFactory as _};

use super::{cell, head};
use crate::cli::Cli;

pub(super) fn page() -> String {
    let mut page = head("Command line");
    let mut root = Cli::command();
    root.build();
    page.push_str(
        "Exit codes: 0 fine; 1 a neighbour is down, or what was asked for could not be done; 2 misconfiguration or a\n\
         wrong command line.\n\n",
    );
    page.push_str("## Options of every command\n\n");
    options(&mut page, root.get_arguments().filter(|arg| arg.is_global_set()));
    for command in root.get_subcommands() {
        describe(&mut page, command, "doorward");
    }
    page
}

fn describe(page: &mut String, command: &Command, parent: &str) {
    if command.get_name() == "help" {
        return;
    }
    let name = format!("{parent} {}", command.get_name());
    let about = command.get_long_about().or_else(|| command.get_about()).map(ToString::to_string).unwrap_or_default();
    let about = if about.is_empty() || about.ends_with('.') { about } else { format!("{about}.") };
    if command.has_subcommands() {
        let _ = write!(page, "\n## `{name}`\n\n{about}\n");
        for inner in command.get_subcommands() {
            describe(page, inner, &name);
        }
        return;
    }
    let arguments: Vec<&Arg> = command
        .get_arguments()
        .filter(|arg| !arg.is_global_set() && !matches!(arg.get_id().as_str(), "help" | "version"))
        .collect();
    let usage: Vec<String> = arguments.iter().map(|arg| usage(arg)).collect();
    let _ = write!(page, "\n## `{}`\n\n{about}\n", format!("{name} {}", usage.join(" ")).trim_end());
    if !arguments.is_empty() {
        page.push('\n');
        options(page, arguments.into_iter());
    }
}

fn spelling(arg: &Arg) -> String {
    let value = arg.get_value_names().and_then(|names| names.first()).filter(|_| arg.get_action().takes_values());
    let value = value.map(ToString::to_string).unwrap_or_default();
    match arg.get_long() {
        Some(long) if value.is_empty() => format!("--{long}"),
        Some(long) => format!("--{long} {value}"),
        None => value,
    }
}

fn usage(arg: &Arg) -> String {
    if arg.is_required_set() { spelling(arg) } else { format!("[{}]", spelling(arg)) }
}

fn options<'a>(page: &mut String, arguments: impl Iterator<Item = &'a Arg>) {
    page.push_str("| option | meaning |\n|---|---|\n");
    for arg in arguments {
        let mut help = arg.get_long_help().or_else(|| arg.get_help()).map(ToString::to_string).unwrap_or_default();
        if !help.is_empty() && !help.ends_with(['.', '?', '!']) {
            help.push('.'); // clap takes the last one away
        }
        let defaults: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
        if !defaults.is_empty() && arg.get_action().takes_values() {
            let _ = write!(help, " Default: `{}`.", defaults.join(" "));
        }
        if let Some(variable) = arg.get_env() {
            let _ = write!(help, " Variable: `{}`.", variable.to_string_lossy());
        }
        let _ = writeln!(page, "| `{}` | {} |", spelling(arg), cell(&help));
    }
}
