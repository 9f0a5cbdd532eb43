//! Templates as people write them, and callers who try to get more than they may.

use super::*;
use proptest::prelude::*;

const LLAMA: &str = r#"
description = "llama.cpp with one of our models"
command = ["llama-server", "--model", "/models/{model}.gguf", "--port", "{port}", "--alias={alias}"]
env = { CUDA_CACHE = "/tmp/{alias}", JSON = "{{}}" }
working-directory = "/srv"
port = "{port}"
vram = "{room}"
model = "{model}"
restart = "on-failure"
probe = "llama"
health-timeout = "90s"
labels = { team = "llm" }

[limits]
cpu = "400%"
memory = "16G"
pids = 500
rlimits = { nofile = "1024" }

[parameters.model]
type = "choice"
choices = ["qwen", "llama"]
default = "qwen"
description = "which model"

[parameters.port]
type = "integer"
min = 8000
max = 8999

[parameters.alias]
type = "name"
default = "a/b:Q4"

[parameters.room]
type = "size"
default = "8G"
"#;

struct Place {
    dir: tempfile::TempDir,
    templates: Templates,
}

impl Place {
    fn new(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(format!("{name}.toml")), text).unwrap();
        }
        let templates = Templates::new(Some(dir.path().to_owned()));
        Self { dir, templates }
    }

    fn fill(&self, template: &str, parameters: &[(&str, &str)]) -> Result<StartWorkerRequest, TemplateError> {
        self.templates.fill(asked(template, parameters))
    }
}

fn asked(template: &str, parameters: &[(&str, &str)]) -> StartWorkerRequest {
    let parameters = parameters.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    StartWorkerRequest { template: template.to_owned(), parameters, ..StartWorkerRequest::default() }
}

fn told(text: &str) -> String {
    parse(text.as_bytes()).unwrap_err().to_string()
}

#[test]
fn a_template_is_filled_and_keeps_its_name() {
    let place = Place::new(&[("llama", LLAMA)]);
    let mut request = asked("llama", &[("port", "8080"), ("room", "12.5G")]);
    request.labels = [("team", "mine"), ("for", "ann")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    request.instance = "1".to_owned();
    let filled = place.templates.fill(request).unwrap();
    let wanted = ["llama-server", "--model", "/models/qwen.gguf", "--port", "8080", "--alias=a/b:Q4"];
    assert_eq!(filled.command, wanted);
    assert_eq!(filled.env["CUDA_CACHE"], "/tmp/a/b:Q4");
    assert_eq!(filled.env["JSON"], "{}");
    assert_eq!(filled.endpoint.as_ref().unwrap().port, 8080);
    let limits = filled.limits.clone().unwrap();
    assert_eq!((limits.vram.as_str(), limits.cpu.as_str(), limits.processes.as_str()), ("12.5G", "400%", "500"));
    assert_eq!((filled.model.as_deref(), filled.template.as_str()), (Some("qwen"), "llama"));
    assert_eq!((filled.restart(), filled.probe()), (proto::RestartPolicy::OnFailure, proto::Probe::LlamaCpp));
    assert_eq!(filled.health_timeout.unwrap().seconds, 90);
    assert_eq!((filled.labels["team"].as_str(), filled.labels["for"].as_str()), ("llm", "ann"));
    assert_eq!((filled.instance.as_str(), filled.parameters["port"].as_str()), ("1", "8080"));
}

#[test]
fn what_does_not_fit_is_refused_with_its_field_and_what_is_accepted() {
    let place = Place::new(&[("llama", LLAMA)]);
    for (parameters, field, words) in [
        (&[("port", "80")][..], "parameters.port", "from 8000 to 8999"),
        (&[("port", "+8080")], "parameters.port", "from 8000 to 8999"),
        (&[("port", "8080 ")], "parameters.port", "from 8000 to 8999"),
        (&[], "parameters.port", "must be given"),
        (&[("port", "8080"), ("model", "gpt")], "parameters.model", "qwen, llama"),
        (&[("port", "8080"), ("alias", "--api-key")], "parameters.alias", "beginning with"),
        (&[("port", "8080"), ("alias", "a b")], "parameters.alias", "letters, digits"),
        (&[("port", "8080"), ("alias", "../etc")], "parameters.alias", "without"),
        (&[("port", "8080"), ("alias", "/etc/shadow")], "parameters.alias", "beginning with"),
        (&[("port", "8080"), ("alias", "http://evil/x")], "parameters.alias", "//"),
        (&[("port", "8080"), ("room", "max")], "parameters.room", "8G"),
        (&[("port", "8080"), ("room", "8G --x")], "parameters.room", "8G"),
        (&[("port", "8080"), ("prot", "1")], "parameters.prot", "alias, model, port, room"),
    ] {
        match place.fill("llama", parameters) {
            Err(TemplateError::Field { field: told, message }) => {
                assert_eq!(told, field);
                assert!(message.contains(words), "{message}");
            }
            other => panic!("{parameters:?}: {other:?}"),
        }
    }
}

#[test]
fn nothing_stands_beside_a_template_that_it_decides() {
    let place = Place::new(&[("llama", LLAMA)]);
    let plain = || asked("llama", &[("port", "8080")]);
    let texts = || vec!["x".to_owned()];
    for (field, request) in [
        ("command", StartWorkerRequest { command: texts(), ..plain() }),
        ("env", StartWorkerRequest { env: [("LD_PRELOAD".to_owned(), "x".to_owned())].into(), ..plain() }),
        ("working_directory", StartWorkerRequest { working_directory: "/".to_owned(), ..plain() }),
        ("model", StartWorkerRequest { model: Some(String::new()), ..plain() }),
        ("endpoint", StartWorkerRequest { endpoint: Some(proto::Endpoint::default()), ..plain() }),
        ("placement_policy", StartWorkerRequest { placement_policy: 1, ..plain() }),
        ("gpus", StartWorkerRequest { gpus: texts(), ..plain() }),
        ("take_over", StartWorkerRequest { take_over: true, ..plain() }),
        ("restart", StartWorkerRequest { restart: 3, ..plain() }),
        ("clear_env", StartWorkerRequest { clear_env: true, ..plain() }),
        ("keep_env", StartWorkerRequest { keep_env: texts(), ..plain() }),
        ("user", StartWorkerRequest { user: "root".to_owned(), ..plain() }),
        ("no_new_privileges", StartWorkerRequest { no_new_privileges: true, ..plain() }),
        ("probe", StartWorkerRequest { probe: 2, ..plain() }),
        ("health_timeout", StartWorkerRequest { health_timeout: Some(prost_types::Duration::default()), ..plain() }),
        (
            "limits",
            StartWorkerRequest { limits: Some(proto::Limits { nice: Some(0), ..Default::default() }), ..plain() },
        ),
    ] {
        match place.templates.fill(request) {
            Err(TemplateError::Field { field: told, .. }) => assert_eq!(told, field),
            other => panic!("{field}: {other:?}"),
        }
    }
}

#[test]
fn without_a_directory_nothing_is_started_by_name() {
    assert!(matches!(Templates::new(None).fill(asked("a", &[])), Err(TemplateError::Off(None))));
    let dir = tempfile::tempdir().unwrap();
    let later = Templates::new(Some(dir.path().join("later")));
    assert!(!later.is_on());
    let error = later.fill(asked("a", &[])).unwrap_err().to_string();
    assert!(error.contains("is off") && error.contains("later"), "{error}");
    fs::create_dir(dir.path().join("later")).unwrap();
    assert!(later.is_on(), "the directory is looked for at each use");
    assert!(matches!(later.fill(asked("a", &[])), Err(TemplateError::Unknown { .. })));
}

#[test]
fn a_name_cannot_leave_the_directory() {
    let place = Place::new(&[("llama", LLAMA)]);
    fs::create_dir(place.dir.path().join("in")).unwrap();
    let inner = Templates::new(Some(place.dir.path().join("in")));
    for name in ["../llama", "in/../llama", "/etc/passwd", "", ".", "llama.toml/../llama", "LLAMA"] {
        assert!(matches!(inner.fill(asked(name, &[])), Err(TemplateError::Unknown { .. })), "{name}");
    }
    let error = place.fill("lama", &[]).unwrap_err().to_string();
    assert!(error.contains("\"lama\"") && error.contains("llama"), "{error}");
}

#[test]
fn a_broken_template_is_listed_with_its_line_and_cannot_be_started() {
    let bad = "command = [\"sleep\"]\nrestrat = \"never\"\n";
    let limits = "command = [\"sleep\"]\n[limits]\ncpu = \"a lot\"\n";
    let place = Place::new(&[("llama", LLAMA), ("bad", bad), ("limits", limits)]);
    fs::write(place.dir.path().join("notes.txt"), "not a template").unwrap();
    let check = |request: &StartWorkerRequest| {
        let limits = request.limits.as_ref().unwrap();
        crate::worker::limits::Limits::parse(limits).map(drop).map_err(|error| error.to_string())
    };
    let listed = place.templates.list(check);
    let names: Vec<&str> = listed.iter().map(|template| template.name.as_str()).collect();
    assert_eq!(names, ["bad", "limits", "llama"]);
    assert!(listed[0].error.contains("bad.toml:2:") && listed[0].error.contains("did you mean restart?"));
    assert!(listed[1].error.contains("\"a lot\""), "{}", listed[1].error);
    assert_eq!((listed[2].error.as_str(), listed[2].parameters.len()), ("", 4));
    assert!(matches!(place.fill("bad", &[]), Err(TemplateError::Broken { .. })));
}

#[test]
fn templates_are_read_at_each_use() {
    let place = Place::new(&[("w", "command = [\"one\"]\n")]);
    assert_eq!(place.fill("w", &[]).unwrap().command, ["one"]);
    fs::write(place.dir.path().join("w.toml"), "command = [\"two\"]\n").unwrap();
    assert_eq!(place.fill("w", &[]).unwrap().command, ["two"]);
}

#[test]
fn a_template_that_others_can_write_is_not_started() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new(&[("w", "command = [\"one\"]\n")]);
    let set =
        |path: &str, mode| fs::set_permissions(place.dir.path().join(path), fs::Permissions::from_mode(mode)).unwrap();
    for (path, mode, good) in [("w.toml", 0o666, 0o644), ("w.toml", 0o664, 0o644), ("", 0o775, 0o755)] {
        set(path, mode);
        let error = place.fill("w", &[]).unwrap_err().to_string();
        assert!(error.contains("can be written by others"), "{path} {mode:o}: {error}");
        set(path, good);
        assert!(place.fill("w", &[]).is_ok(), "{path} {good:o}");
    }
}

#[test]
fn mistakes_in_a_template_are_told_with_their_line_and_key() {
    for (text, line, words) in [
        ("", 1, "a program is needed"),
        ("comand = [\"a\"]", 1, "did you mean command?"),
        ("command = \"a b\"", 1, "a list of texts"),
        ("command = [\"{a}\"]\n[parameters.a]\ntype = \"name\"", 1, "take no placeholder"),
        ("command = [\"a\", \"{b}\"]", 1, "there is no parameter \"b\""),
        ("command = [\"a\", \"{\"]", 1, "written twice"),
        ("command = [\"a\"]\nuser = \"{u}\"\n[parameters.u]\ntype = \"name\"", 1, "take no placeholder"),
        ("command = [\"a\"]\nport = 70000", 1, "not a port"),
        ("command = [\"a\"]\nrestart = \"maybe\"", 2, "never, on-failure, always"),
        ("command = [\"a\"]\nhealth-timeout = \"soon\"", 2, "90s"),
        ("command = [\"a\"]\n[parameters.a]\ntype = \"text\"", 3, "integer, choice, name or size"),
        ("command = [\"a\"]\n[parameters.a]\ntype = \"choice\"", 3, "needs its choices"),
        ("command = [\"a\"]\n[parameters.a]\ntype = \"integer\"\nmin = 3\nmax = 2", 3, "min is above max"),
        ("command = [\"a\"]\n[parameters.a]\ntype = \"name\"\ndefault = \"-x\"", 3, "the default does not fit"),
        ("command = [\"a\"]\n[parameters.a]\ntype = \"name\"\nmin = 1", 3, "only an integer"),
        ("command = [\"a\"]\n[parameters.a]\ntipe = \"name\"", 3, "did you mean type?"),
        ("command = [\"a\"]\n[limits]\ncpus = true", 3, "whole number"),
        ("command = [\"a\"]\n[limits]\nmemroy = \"1G\"", 3, "did you mean memory?"),
        ("command = [", 1, ""),
    ] {
        let error = told(text);
        assert!(error.starts_with(&format!("{line}: ")) && error.contains(words), "{text:?}: {error}");
    }
}

proptest! {
    /// Whatever a caller sends: the command keeps its length, every part of it that has no placeholder stays as it is,
    /// and no value that is accepted looks like a flag, leaves a directory or brings a character that a shell knows.
    #[test]
    fn no_value_changes_what_is_run(values in prop::collection::vec(any::<String>(), 4), dash in "[-./:a-z0-9 ;$]{0,12}") {
        let form = parse(LLAMA.as_bytes()).unwrap();
        for text in values.iter().chain([&dash]) {
            for (name, parameter) in &form.parameters {
                let Ok(value) = parameter.check(text) else { continue };
                prop_assert!(!value.starts_with('-') && !value.starts_with('/'), "{name}={value:?}");
                prop_assert!(!value.contains("..") && !value.contains("//"), "{name}={value:?}");
                let plain = |c: char| c.is_ascii_alphanumeric() || "._-/:".contains(c);
                prop_assert!(value.chars().all(plain), "{name}={value:?}");
            }
        }
    }

    #[test]
    fn each_argument_stays_one_argument(alias in "[a-z0-9_][a-zA-Z0-9._:-]{0,40}", port in 8000_i64..9000) {
        prop_assume!(!alias.contains(".."));
        let form = parse(LLAMA.as_bytes()).unwrap();
        let given = [("alias", alias.as_str()), ("port", &port.to_string())];
        let given = given.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let filled = form.fill(&values(&form, &given).unwrap()).unwrap();
        let wanted =
            ["llama-server", "--model", "/models/qwen.gguf", "--port", &port.to_string(), &format!("--alias={alias}")];
        prop_assert_eq!(filled.command, wanted);
    }

    #[test]
    fn b7_no_bytes_break_the_reader(bytes in prop::collection::vec(any::<u8>(), 0..400), text in "\\PC{0,200}") {
        let _ = parse(&bytes);
        let _ = parse(text.as_bytes());
        let _ = parse(format!("{LLAMA}{text}").as_bytes());
    }
}
