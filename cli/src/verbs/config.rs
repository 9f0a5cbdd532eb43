//! `rbee config check` and `rbee config show`: what the configuration files of a hive and a queen say, and what comes
//! of them.

use crate::args::{self, ConfigVerb, Global, Verb};
use crate::failure::Failure;
use crate::serve::agent::{Choices, Picked, Source, choose};
use crate::serve::queen;
use crate::serve::settings::{self, File};
use crate::terminal;
use ::hive::worker::observe::Rule;
use ::hive::worker::observe::target::Target;
use common::link::TokenSource;
use std::path::{Path, PathBuf};

/// Does what was asked for.
pub fn run(global: &Global, verb: &ConfigVerb) -> Result<(), Failure> {
    match verb {
        ConfigVerb::Check(args) => check(args.file.as_deref()),
        ConfigVerb::Show(args) => show(global, args.file.as_deref()),
    }
}

/// The file that a hive or queen started here would read, if one is named.
fn named(file: Option<&Path>) -> Option<PathBuf> {
    let variable = || std::env::var_os("RBEE_CONFIG").filter(|set| !set.is_empty()).map(PathBuf::from);
    file.map(Path::to_owned).or_else(variable)
}

fn check(file: Option<&Path>) -> Result<(), Failure> {
    let named = named(file);
    let names: &[&str] = if named.is_some() { &[settings::HIVE] } else { &[settings::HIVE, settings::QUEEN] };
    let mut good = String::new();
    for name in names {
        if let Some((path, read)) = settings::read(named.as_deref(), name)? {
            check_times(&path, &read)?;
            good.push_str(&format!("{}: good, {}\n", path.display(), summary(&read)));
        }
    }
    if good.is_empty() {
        let places = names.iter().flat_map(|name| settings::usual_places(name));
        let places: Vec<String> = places.map(|path| path.display().to_string()).collect();
        return Err(Failure::Nothing(format!("there is no configuration file: looked for {}", places.join(" and "))));
    }
    terminal::put(good)
}

/// What each setting may be was looked at when the file was read; these have to fit one another.
fn check_times(path: &Path, read: &File) -> Result<(), Failure> {
    if read.queen.times.is_empty() {
        return Ok(());
    }
    let wrong = |failure| Failure::Usage(format!("{}: {failure}", path.display()));
    queen_without_flags(read)?.in_order().map_err(wrong)
}

/// What counts then is in the environment, the file, and the defaults.
fn queen_without_flags(file: &File) -> Result<queen::Choices, Failure> {
    let cli = args::parse(["rbee", "queen"].map(Into::into)).map_err(|error| Failure::Usage(error.to_string()))?;
    let Verb::Queen(alone) = cli.verb else { return Err(Failure::Usage("failed to read the environment".to_owned())) };
    queen::choose(&alone.queen, &file.queen, |name| std::env::var(name).ok())
}

fn summary(read: &File) -> String {
    let rules = match read.observe.len() {
        0 => "no rules for observing".to_owned(),
        1 => "1 rule for observing".to_owned(),
        several => format!("{several} rules for observing"),
    };
    if read.queen == settings::queen::QueenSection::default() { rules } else { format!("settings of a queen, {rules}") }
}

fn show(global: &Global, file: Option<&Path>) -> Result<(), Failure> {
    // A hive without flags: what counts then is in the environment, the file, and the defaults.
    let cli = args::parse(["rbee", "hive"].map(Into::into)).map_err(|error| Failure::Usage(error.to_string()))?;
    let Verb::Hive(hive) = cli.verb else { return Err(Failure::Usage("failed to read the environment".to_owned())) };
    let named = named(file);
    let (place, file) = found(settings::read(named.as_deref(), settings::HIVE)?);
    let global = Global { queen: cli.global.queen, queen_given: cli.global.queen_given, ..global.clone() };
    let choices = choose(&global, &hive.agent, &file, None)?;
    let (queen_place, queen_file) = found(settings::read(named.as_deref(), settings::QUEEN)?);
    let queen = queen_without_flags(&queen_file)?;
    terminal::put(text(&choices, &file.observe, &place) + "\n" + &queen_text(&queen, &queen_place))
}

fn found(read: Option<(PathBuf, File)>) -> (String, File) {
    read.map_or(("no file".to_owned(), File::default()), |(path, file)| (path.display().to_string(), file))
}

/// One setting, with where it comes from.
fn line(key: &str, value: &str, from: Source) -> String {
    let from = match from {
        Source::Given => "environment",
        Source::File => "file",
        Source::Default => "default",
    };
    format!("{key} = {value}  # {from}\n")
}

fn queen_text(choices: &queen::Choices, place: &str) -> String {
    let lines = choices.lines(quoted).into_iter().map(|(key, value, from)| line(key, &value, from));
    format!("# from {place}\n[queen]\n{}", lines.collect::<String>())
}

/// As a file would say it, with where each line comes from.
fn text(choices: &Choices, rules: &[Rule], place: &str) -> String {
    let mut out = format!("# from {place}\n[hive]\n");
    let mut line = |key: &str, value: String, from: Source| out.push_str(&line(key, &value, from));
    let path = |path: &PathBuf| quoted(&path.display().to_string());
    line("name", quoted(&choices.name.value), choices.name.from);
    let labels: Vec<String> =
        choices.labels.value.iter().map(|(key, value)| format!("{} = {}", quoted(key), quoted(value))).collect();
    line("labels", braces(&labels), choices.labels.from);
    line("queen", list(choices.queen.value.iter().map(|url| quoted(url))), choices.queen.from);
    line("state-dir", path(&choices.state_dir.value), choices.state_dir.from);
    line("socket", path(&choices.socket.value), choices.socket.from);
    line("slice", quoted(&choices.slice.value), choices.slice.from);
    line("advertise", quoted(&choices.advertise.value), choices.advertise.from);
    if let Picked { value: Some(library), from } = &choices.nvml_library {
        line("nvml-library", path(library), *from);
    }
    if let Picked { value: Some(dir), from } = &choices.template_dir {
        line("template-dir", path(dir), *from);
    }
    line("container-sockets", list(choices.container_sockets.value.iter().map(path)), choices.container_sockets.from);
    if let Picked { value: Some(ca), from } = &choices.tls_ca {
        line("tls-ca", path(ca), *from);
    }
    if let Picked { value: Some(name), from } = &choices.tls_name {
        line("tls-name", quoted(name), *from);
    }
    match &choices.token {
        Picked { value: TokenSource::File(file), from } => line("token-file", path(file), *from),
        Picked { value: TokenSource::Given(_), .. } => out.push_str("# a token from RBEE_TOKEN, which is not shown\n"),
        Picked { value: TokenSource::None, .. } => {}
    }
    for rule in rules {
        out.push_str(&rule_text(rule));
    }
    out
}

fn rule_text(rule: &Rule) -> String {
    let (key, value) = match &rule.target {
        Target::Unit(name) => ("unit", name.clone()),
        Target::Container(name) | Target::Name(name) => ("container", name.clone()),
        Target::Program(pattern) => ("process", pattern.clone()),
        Target::Process(pid) => ("process", pid.to_string()),
    };
    let mut out = format!("\n[[observe]]\n{key} = {}\n", quoted(&value));
    let wish = &rule.wish;
    out.push_str(&format!("group = {}\n", quoted(wish.group())));
    for (key, value) in [("name", &wish.instance), ("model", &wish.model)] {
        if let Some(value) = value {
            out.push_str(&format!("{key} = {}\n", quoted(value)));
        }
    }
    match &wish.endpoint {
        Some(address) if address.host.is_empty() => out.push_str(&format!("port = {}\n", address.port)),
        Some(address) => {
            let host = if address.host.contains(':') { format!("[{}]", address.host) } else { address.host.clone() };
            out.push_str(&format!("endpoint = {}\n", quoted(&format!("{}://{host}:{}", address.scheme, address.port))));
        }
        None => {}
    }
    let probe = args::ProbeKind::from_wire(wish.probe);
    out.push_str(&format!("probe = {}\n", quoted(&probe.word())));
    if !wish.labels.is_empty() {
        let labels = wish.labels.iter().map(|(key, value)| format!("{} = {}", quoted(key), quoted(value)));
        out.push_str(&format!("labels = {}\n", braces(&labels.collect::<Vec<_>>())));
    }
    out
}

fn braces(pairs: &[String]) -> String {
    if pairs.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", pairs.join(", ")) }
}

fn list(texts: impl Iterator<Item = String>) -> String {
    format!("[{}]", texts.collect::<Vec<_>>().join(", "))
}

/// A basic string of TOML.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_can_be_read_again() {
        let given = r#"
            hive = { name = "a", labels = { "x y" = "q\"" }, tls-ca = "/ca", tls-name = "q", token-file = "/t" }
            [[observe]]
            unit = "a"
            port = 1
            probe = "tgi"
            [[observe]]
            process = "* \\ \u007f *"
            endpoint = "http://[::1]:2"
            model = "m"
            name = "n"
            labels = { a = "b" }
        "#;
        let file = settings::parse(given.as_bytes()).unwrap();
        let cli = args::parse(["rbee", "hive"].map(Into::into)).unwrap();
        let Verb::Hive(hive) = cli.verb else { panic!("not hive") };
        let choices = choose(&cli.global, &hive.agent, &file, None).unwrap();
        let shown = text(&choices, &file.observe, "here");
        let again = settings::parse(shown.as_bytes()).unwrap_or_else(|error| panic!("{error} in\n{shown}"));
        let told = |hive: &settings::HiveSection| {
            let reach = (hive.tls_ca.clone(), hive.tls_name.clone(), hive.token_file.clone());
            (hive.name.clone(), hive.labels.clone(), reach)
        };
        assert_eq!(told(&again.hive), told(&file.hive));
        let plain = |rule: &Rule| {
            let mut rule = rule.clone();
            rule.wish.group = Some(rule.wish.group().to_owned());
            rule.wish.probe = args::ProbeKind::from_wire(rule.wish.probe) as i32;
            rule
        };
        assert_eq!(
            again.observe.iter().map(plain).collect::<Vec<_>>(),
            file.observe.iter().map(plain).collect::<Vec<_>>()
        );
    }

    #[test]
    fn what_is_shown_of_a_queen_can_be_read_again() {
        let given = "[queen]\nlisten = \"0.0.0.0:1\"\ntls-cert = \"/c\"\ntls-key = \"/k\"\nmax-hives = 3\nlost-after = \"4.5s\"\n";
        let file = settings::parse(given.as_bytes()).unwrap();
        let cli = args::parse(["rbee", "queen"].map(Into::into)).unwrap();
        let Verb::Queen(args) = cli.verb else { panic!("not queen") };
        let shown = queen_text(&queen::choose(&args.queen, &file.queen, |_| None).unwrap(), "here");
        let again = settings::parse(shown.as_bytes()).unwrap_or_else(|error| panic!("{error} in\n{shown}")).queen;
        assert_eq!(
            (again.listen, again.tls_cert, again.tls_key),
            (file.queen.listen, file.queen.tls_cert, file.queen.tls_key)
        );
        assert_eq!((again.bounds["max-hives"], again.times["lost-after"].as_millis()), (3, 4_500));
        assert!(
            shown.contains("max-hives = 3  # file\n") && shown.contains("max-calls = 1024  # default\n"),
            "{shown}"
        );
    }

    #[test]
    fn a_file_whose_times_contradict_one_another_is_not_good() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("queen.toml");
        std::fs::write(&path, "[queen]\nremove-after = \"5s\"\n").unwrap();
        let told = check(Some(&path)).unwrap_err();
        let wanted = "queen.toml: lost-after 10s (the default) is longer than remove-after 5s";
        assert!(matches!(&told, Failure::Usage(words) if words.contains(wanted)), "{told}");
    }
}
