//! One template file: TOML to a request with placeholders. Every mistake is told with its line and its key.

use super::parameter::Parameter;
use super::text;
use common::fields::{Fields, FileError, document, text_of};
use proto::{Limits, Probe, RestartPolicy, StartWorkerRequest};
use std::collections::BTreeMap;
use std::time::Duration;

/// More parameters than this are refused.
const PARAMETERS_MAX: usize = 64;

/// A template as it is written.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Form {
    /// For people.
    pub description: String,
    /// By name.
    pub parameters: BTreeMap<String, Parameter>,
    /// What is started, with placeholders in it.
    request: StartWorkerRequest,
    /// The port, or the placeholder that stands for it.
    port: Option<String>,
}

/// Reads a template.
pub fn parse(bytes: &[u8]) -> Result<Form, FileError> {
    let text = text_of(bytes)?;
    let form = read(text).map_err(|error| error.in_text(text))?;
    // Whatever is wrong with a placeholder is wrong for every caller.
    let examples = form.parameters.iter().map(|(name, parameter)| (name.clone(), parameter.example())).collect();
    form.fill(&examples).map_err(|message| FileError::at(0..0, message).in_text(text))?;
    Ok(form)
}

fn read(text: &str) -> Result<Form, FileError> {
    let document = document(text)?;
    let mut fields = Fields::new("template", document.get_ref());
    let description = fields.text("description")?.unwrap_or_default();
    let request = StartWorkerRequest {
        command: fields.list("command")?.unwrap_or_default(),
        env: fields.pairs("env")?.into_iter().collect(),
        working_directory: fields.text("working-directory")?.unwrap_or_default(),
        model: fields.text("model")?,
        labels: fields.pairs("labels")?.into_iter().collect(),
        gpus: fields.texts("gpus")?.unwrap_or_default(),
        restart: choice(&mut fields, "restart", &RESTARTS)?.into(),
        clear_env: fields.flag("clear-env")?.unwrap_or_default(),
        keep_env: fields.texts("keep-env")?.unwrap_or_default(),
        user: fields.text("user")?.unwrap_or_default(),
        no_new_privileges: fields.flag("no-new-privileges")?.unwrap_or_default(),
        probe: choice(&mut fields, "probe", &PROBES)?.into(),
        health_timeout: length(&mut fields, "health-timeout")?.map(common::duration),
        placement_policy: i32::from(match fields.flag("require-limits")? {
            Some(true) => proto::PlacementPolicy::Required,
            _ => proto::PlacementPolicy::BestEffort,
        }),
        ..StartWorkerRequest::default()
    };
    let (port, vram) = (fields.word("port")?, fields.word("vram")?);
    let limits = fields.table("limits")?.map(|all| limits(Fields::new("limits", all))).transpose()?;
    let limits = Limits { vram: vram.unwrap_or_default(), ..limits.unwrap_or_default() };
    let mut parameters = BTreeMap::new();
    for (name, value) in fields.table("parameters")?.into_iter().flatten() {
        let wrong = |message: &str| FileError::at(name.span(), format!("parameters.{}: {message}", name.get_ref()));
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if name.get_ref().is_empty() || name.get_ref().len() > 64 || !name.get_ref().bytes().all(plain) {
            return Err(wrong("a parameter's name has 1 to 64 letters, digits, _ and -"));
        }
        if parameters.len() >= PARAMETERS_MAX {
            return Err(wrong("a template has at most 64 parameters"));
        }
        let table = value.get_ref().as_table().ok_or_else(|| wrong("use a table"))?;
        parameters.insert(name.get_ref().to_string(), Parameter::read(Fields::new("parameters", table))?);
    }
    // A key that does not exist may be the misspelt command.
    fields.end()?;
    if request.command.first().is_none_or(String::is_empty) {
        return Err(FileError::at(0..0, "template.command: a program is needed, and its arguments, one text each"));
    }
    Ok(Form { description, parameters, request: StartWorkerRequest { limits: Some(limits), ..request }, port })
}

fn limits(mut fields: Fields<'_, '_>) -> Result<Limits, FileError> {
    let mut word = |key| Ok::<_, FileError>(fields.word(key)?.unwrap_or_default());
    let limits = Limits {
        cpu: word("cpu")?,
        memory: word("memory")?,
        memory_high: word("memory-high")?,
        swap: word("swap")?,
        processes: word("pids")?,
        cpu_weight: word("cpu-weight")?,
        cpus: word("cpus")?,
        memory_nodes: word("memory-nodes")?,
        io: fields.texts("io")?.unwrap_or_default(),
        nice: fields.integer("nice")?.map(|nice| i32::try_from(nice).unwrap_or(i32::MAX)),
        rlimits: fields.pairs("rlimits")?.into_iter().collect(),
        oom_group: fields.flag("oom-group")?,
        vram: String::new(),
    };
    fields.end()?;
    Ok(limits)
}

const RESTARTS: [(&str, RestartPolicy); 3] =
    [("never", RestartPolicy::Never), ("on-failure", RestartPolicy::OnFailure), ("always", RestartPolicy::Always)];
const PROBES: [(&str, Probe); 7] = [
    ("auto", Probe::Auto),
    ("none", Probe::None),
    ("llama", Probe::LlamaCpp),
    ("vllm", Probe::Vllm),
    ("sglang", Probe::Sglang),
    ("tgi", Probe::Tgi),
    ("ollama", Probe::Ollama),
];

/// One of some words; the first of them when there is none.
fn choice<T: Copy>(fields: &mut Fields<'_, '_>, key: &'static str, words: &[(&str, T)]) -> Result<T, FileError> {
    let Some(value) = fields.take(key) else { return Ok(words[0].1) };
    let found = words.iter().find(|(word, _)| value.get_ref().as_str() == Some(word));
    found.map(|(_, meaning)| *meaning).ok_or_else(|| {
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        fields.wrong(key, value, &format!("use one of {}", known.join(", ")))
    })
}

/// "90s", "5m", "1h".
fn length(fields: &mut Fields<'_, '_>, key: &'static str) -> Result<Option<Duration>, FileError> {
    let Some(value) = fields.take(key) else { return Ok(None) };
    let text = value.get_ref().as_str().unwrap_or_default();
    let parsed = [("s", 1), ("m", 60), ("h", 3_600)].iter().find_map(|(unit, seconds)| {
        let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
        Some(Duration::from_secs(number.checked_mul(*seconds)?))
    });
    parsed.map(Some).ok_or_else(|| fields.wrong(key, value, "use a time such as \"90s\", \"5m\" or \"1h\""))
}

impl Form {
    /// The request with these values in the place of their placeholders. Each argument stays one argument. The program
    /// and the user are the template's alone.
    ///
    /// # Errors
    /// A sentence about a text of the template that cannot be filled.
    pub fn fill(&self, values: &BTreeMap<String, String>) -> Result<StartWorkerRequest, String> {
        let value = |name: &str| values.get(name).map(String::as_str);
        let mut request = self.request.clone();
        for (place, alone) in [("command", request.command.first()), ("user", Some(&request.user))] {
            if alone.is_some_and(|text| text.contains(['{', '}'])) {
                return Err(format!("template.{place}: the program and the user take no placeholder"));
            }
        }
        for (place, at) in places(&mut request) {
            *at = text::fill(at, value).map_err(|error| format!("template.{place}: {error}"))?;
        }
        if let Some(port) = &self.port {
            let filled = text::fill(port, value).map_err(|error| format!("template.port: {error}"))?;
            let port = filled.parse().ok().filter(|port: &u16| *port > 0);
            let port = port.ok_or_else(|| format!("template.port: {filled:?} is not a port, 1 to 65535"))?;
            request.endpoint = Some(proto::Endpoint { port: port.into(), ..proto::Endpoint::default() });
        }
        Ok(request)
    }
}

/// The texts that may have placeholders, and the keys they stand at.
fn places(request: &mut StartWorkerRequest) -> impl Iterator<Item = (&'static str, &mut String)> {
    let at = |key: &'static str| move |text| (key, text);
    let limits = request.limits.iter_mut().flat_map(|limits| {
        [
            ("vram", &mut limits.vram),
            ("limits.cpu", &mut limits.cpu),
            ("limits.memory", &mut limits.memory),
            ("limits.memory-high", &mut limits.memory_high),
            ("limits.swap", &mut limits.swap),
            ("limits.pids", &mut limits.processes),
            ("limits.cpu-weight", &mut limits.cpu_weight),
            ("limits.cpus", &mut limits.cpus),
            ("limits.memory-nodes", &mut limits.memory_nodes),
        ]
    });
    let arguments = request.command.iter_mut().skip(1).map(at("command"));
    arguments
        .chain(request.env.values_mut().map(at("env")))
        .chain(std::iter::once(&mut request.working_directory).map(at("working-directory")))
        .chain(request.model.iter_mut().map(at("model")))
        .chain(request.gpus.iter_mut().map(at("gpus")))
        .chain(request.labels.values_mut().map(at("labels")))
        .chain(limits)
}
