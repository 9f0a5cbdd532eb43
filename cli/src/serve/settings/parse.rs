//! The text of a configuration file. Every mistake is told with its line, its key and what is accepted.

use super::{File, HiveSection, queen};
use crate::args::ProbeKind;
use crate::verbs::parse_endpoint;
use ::hive::worker::observe::rules::Address;
use ::hive::worker::observe::target::Target;
use ::hive::worker::observe::{Rule, Wish};
use clap::ValueEnum;
use common::fields::{Fields, FileError, document, text_of, unknown};
use std::path::PathBuf;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// More rules than a hive observes at once are refused.
const RULES_MAX: usize = 256;
/// The tables of a file.
const TABLES: [&str; 3] = ["hive", "observe", "queen"];

/// Reads a whole file.
pub fn parse(bytes: &[u8]) -> Result<File, FileError> {
    let text = text_of(bytes)?;
    file(text).map_err(|error| error.in_text(text))
}

fn file(text: &str) -> Result<File, FileError> {
    let document = document(text)?;
    let mut file = File::default();
    for (key, value) in document.get_ref() {
        match (key.get_ref().as_ref(), value.get_ref()) {
            ("hive", DeValue::Table(all)) => file.hive = hive(all, value)?,
            ("hive", _) => return Err(FileError::at(value.span(), "hive: use a table, [hive]")),
            ("queen", DeValue::Table(all)) => file.queen = queen::section(all)?,
            ("queen", _) => return Err(FileError::at(value.span(), "queen: use a table, [queen]")),
            ("observe", DeValue::Array(all)) => file.observe = rules(all)?,
            ("observe", _) => return Err(FileError::at(key.span(), "observe: use one table a rule, [[observe]]")),
            (other, _) => return Err(unknown("", other, key.span(), &TABLES)),
        }
    }
    Ok(file)
}

fn hive(all: &DeTable<'_>, whole: &Spanned<DeValue<'_>>) -> Result<HiveSection, FileError> {
    let mut fields = Fields::new("hive", all);
    let paths = |texts: Option<Vec<String>>| texts.map(|texts| texts.into_iter().map(PathBuf::from).collect());
    let section = HiveSection {
        name: fields.text("name")?,
        labels: fields.pairs("labels")?,
        queen: fields.texts("queen")?,
        state_dir: fields.text("state-dir")?.map(PathBuf::from),
        socket: fields.text("socket")?.map(PathBuf::from),
        slice: fields.text("slice")?,
        advertise: fields.text("advertise")?,
        nvml_library: fields.text("nvml-library")?.map(PathBuf::from),
        template_dir: fields.text("template-dir")?.map(PathBuf::from),
        container_sockets: paths(fields.texts("container-sockets")?),
        tls_ca: fields.text("tls-ca")?.map(PathBuf::from),
        tls_name: fields.text("tls-name")?,
        token_file: fields.text("token-file")?.map(PathBuf::from),
    };
    fields.end()?;
    let place =
        |key: &str| all.iter().find(|(name, _)| name.get_ref().as_ref() == key).map_or(whole, |(_, value)| value);
    let wrong = |key: &str, message: String| FileError::at(place(key).span(), format!("hive.{key}: {message}"));
    if let Some(name) = &section.name {
        common::HiveId::parse(name).map_err(|error| wrong("name", error.to_string()))?;
    }
    if let Some(slice) = &section.slice {
        ::hive::worker::cgroup::check_slice(slice).map_err(|error| wrong("slice", error.to_string()))?;
    }
    if section.queen.iter().flatten().any(|url| !["http://", "https://"].iter().any(|start| url.starts_with(start))) {
        return Err(wrong("queen", "use http://HOST:PORT or https://HOST:PORT".to_owned()));
    }
    Ok(section)
}

fn rules(all: &[Spanned<DeValue<'_>>]) -> Result<Vec<Rule>, FileError> {
    let mut rules: Vec<Rule> = Vec::new();
    for value in all {
        let wrong = |message: String| FileError::at(value.span(), format!("observe: {message}"));
        let DeValue::Table(fields) = value.get_ref() else {
            return Err(wrong("use one table a rule, [[observe]]".to_owned()));
        };
        let rule = rule(fields, value)?;
        if rules.len() >= RULES_MAX {
            return Err(wrong(format!("at most {RULES_MAX} rules are followed")));
        }
        if rules.iter().any(|known| known.target == rule.target) {
            return Err(wrong(format!("there is a rule for {rule} already")));
        }
        let named = |rule: &Rule| rule.wish.instance.clone().map(|name| (rule.wish.group().to_owned(), name));
        if let Some((group, name)) =
            named(&rule).filter(|name| rules.iter().any(|known| named(known).as_ref() == Some(name)))
        {
            return Err(wrong(format!("another rule is called {group}/{name} already")));
        }
        rules.push(rule);
    }
    Ok(rules)
}

fn rule(all: &DeTable<'_>, whole: &Spanned<DeValue<'_>>) -> Result<Rule, FileError> {
    let mut fields = Fields::new("observe", all);
    let wrong = |key: &str, message: &str| {
        let value = all.iter().find(|(name, _)| name.get_ref().as_ref() == key).map_or(whole, |(_, value)| value);
        FileError::at(value.span(), format!("observe.{key}: {message}"))
    };
    let targets = (fields.text("unit")?, fields.text("container")?, fields.text("process")?);
    let (group, instance, model) = (fields.text("group")?, fields.text("name")?, fields.text("model")?);
    let (port, endpoint, probe) = (fields.port("port")?, fields.text("endpoint")?, fields.text("probe")?);
    let labels = fields.pairs("labels")?;
    // A key that does not exist may be the reason why another one is missing: it is told first.
    fields.end()?;
    let probe = probe.map(|text| ProbeKind::from_str(&text, false)).transpose();
    let probe = probe.map_err(|_| wrong("probe", "use auto, none, llama, vllm, sglang, tgi or ollama"))?;
    let wish = Wish {
        group,
        instance,
        model,
        endpoint: address(port, endpoint.as_deref()).map_err(|message| wrong("endpoint", message))?,
        labels,
        probe: probe.map_or(proto::Probe::Unspecified, proto::Probe::from).into(),
    };
    wish.check().map_err(|error| {
        let key = if error.field == "instance" { "name" } else { error.field };
        wrong(key, &error.message)
    })?;
    let target = match targets {
        (Some(name), None, None) => {
            Target::unit(&name).ok_or_else(|| wrong("unit", "use a unit's name, such as \"ollama.service\""))?
        }
        (None, Some(name), None) => Target::parse(&format!("container:{name}"))
            .map_err(|_| wrong("container", "use a container's name or id"))?,
        (None, None, Some(pattern)) => Target::program(&pattern)
            .ok_or_else(|| wrong("process", "use a program's name, or a pattern with * and ? for its command line"))?,
        _ => {
            let message = "observe: say what, by exactly one of unit, container and process";
            return Err(FileError::at(whole.span(), message));
        }
    };
    Ok(Rule { target, wish })
}

/// Where it is reached, by one of two keys.
fn address(port: Option<u16>, endpoint: Option<&str>) -> Result<Option<Address>, &'static str> {
    match (port, endpoint) {
        (Some(_), Some(_)) => Err("use either port or endpoint"),
        (Some(port), None) => Ok(Some(Address { scheme: String::new(), host: String::new(), port: port.into() })),
        (None, Some(text)) => {
            let given = parse_endpoint(text).map_err(|_| "use SCHEME://HOST:PORT")?;
            Ok(Some(Address { scheme: given.scheme, host: given.host, port: given.port }))
        }
        (None, None) => Ok(None),
    }
}
