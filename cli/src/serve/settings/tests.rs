//! What can stand in a file, and how mistakes are told.

use super::*;
use ::hive::worker::observe::target::Target;

const WHOLE: &str = r#"
[hive]
name = "gpu-1"
labels = { rack = "a", owner = "" }
queen = "https://queen:7833"
tls-ca = "/ca.pem"
token-file = "/token"
state-dir = "/s"
slice = "rbee.slice"
advertise = "gpu-1.lan"
container-sockets = ["/run/docker.sock"]

[[observe]]
unit = "ollama.service"
group = "llm"
name = "ollama"
port = 11434
probe = "ollama"

[[observe]]
container = "vllm"
endpoint = "https://llm.lan:8443"
labels = { team = "x" }

[[observe]]
process = "*llama-server*"
model = "qwen"
"#;

#[test]
fn a_whole_file_is_read() {
    let file = parse(WHOLE.as_bytes()).unwrap();
    assert_eq!(file.hive.name.as_deref(), Some("gpu-1"));
    assert_eq!(file.hive.labels.len(), 2);
    assert_eq!(file.hive.queen, Some(vec!["https://queen:7833".to_owned()]));
    assert_eq!(file.hive.state_dir, Some("/s".into()));
    assert_eq!(file.hive.nvml_library, None);
    assert_eq!((&file.hive.tls_ca, &file.hive.token_file), (&Some("/ca.pem".into()), &Some("/token".into())));
    assert_eq!(file.hive.container_sockets, Some(vec!["/run/docker.sock".into()]));
    let targets: Vec<String> = file.observe.iter().map(ToString::to_string).collect();
    assert_eq!(targets, ["unit ollama.service", "container vllm", "process *llama-server*"]);
    let ollama = &file.observe[0].wish;
    assert_eq!((ollama.group(), ollama.endpoint.as_ref().unwrap().port), ("llm", 11434));
    assert_eq!(ollama.probe, i32::from(proto::Probe::Ollama));
    let vllm = file.observe[1].wish.endpoint.as_ref().unwrap();
    assert_eq!((vllm.scheme.as_str(), vllm.host.as_str(), vllm.port), ("https", "llm.lan", 8443));
    assert_eq!(file.observe[2].target, Target::Program("*llama-server*".into()));
    assert_eq!(parse(b"").unwrap(), File::default());
    let bare = parse(b"[[observe]]\nunit = \"ollama\"\n").unwrap();
    assert_eq!(bare.observe[0].target, Target::Unit("ollama.service".into()));
}

fn told(text: &str) -> String {
    parse(text.as_bytes()).unwrap_err().to_string()
}

#[test]
fn an_unknown_key_names_the_nearest_known_one() {
    assert_eq!(
        told("[hive]\nname = \"a\"\nstate_dir = \"/s\"\n"),
        "3: there is no key \"state_dir\" in hive: did you mean state-dir?"
    );
    assert_eq!(told("[hvie]\n"), "1: there is no key \"hvie\": did you mean hive?");
    assert_eq!(
        told("[[observe]]\nunit = \"a\"\nlabel = {}\n"),
        "3: there is no key \"label\" in observe: did you mean labels?"
    );
    let far = told("[hive]\nxyzzyplugh = 1\n");
    assert!(far.contains("known are name, labels, queen, state-dir"), "{far}");
}

#[test]
fn a_wrong_value_is_told_with_its_line_and_what_is_accepted() {
    for (text, wanted) in [
        ("[hive]\nname = 7\n", "2: hive.name: use a text in quotes"),
        ("[hive]\nname = \"A B\"\n", "2: hive.name: hive \"A B\" is not a name"),
        ("[hive]\nslice = \"../x\"\n", "2: hive.slice: slice \"../x\" is not a name"),
        ("[hive]\nqueen = [\"queen:1\"]\n", "2: hive.queen: use http://HOST:PORT"),
        ("[hive]\nlabels = { a = 1 }\n", "2: hive.labels: use a table of texts"),
        ("hive = 1\n", "1: hive: use a table, [hive]"),
        ("[observe]\n", "1: observe: use one table a rule, [[observe]]"),
        ("[[observe]]\n", "1: observe: say what, by exactly one of"),
        ("[[observe]]\nunit = \"a\"\nprocess = \"b\"\n", "1: observe: say what, by exactly one of"),
        ("[[observe]]\nunit = \"a/b\"\n", "2: observe.unit: use a unit's name"),
        ("[[observe]]\nunit = \"a\"\nport = 70000\n", "3: observe.port: use a port, 1 to 65535"),
        ("[[observe]]\nunit = \"a\"\nport = 1\nendpoint = \"http://x\"\n", "4: observe.endpoint: use either"),
        ("[[observe]]\nunit = \"a\"\nprobe = \"lama\"\n", "3: observe.probe: use auto, none, llama"),
        ("[[observe]]\nunit = \"a\"\nname = \"../x\"\n", "3: observe.name: instance \"../x\" is not a name"),
        (
            "[[observe]]\nunit = \"a\"\n[[observe]]\nunit = \"a.service\"\n",
            "3: observe: there is a rule for unit a.service",
        ),
        (
            "[[observe]]\nunit = \"a\"\nname = \"n\"\n[[observe]]\nunit = \"b\"\nname = \"n\"\n",
            "4: observe: another rule is called observed/n",
        ),
        ("[hive\n", "1: "),
        ("[hive]\nname = \"a\"\nname = \"b\"\n", "3: "),
    ] {
        let told = told(text);
        assert!(told.starts_with(wanted), "{text:?}: {told}");
    }
    assert_eq!(parse(b"[hive]\n\xff").unwrap_err().to_string(), "2: this is not UTF-8 text");
}

#[test]
fn a_file_that_was_named_must_be_there() {
    let told = read(Some(Path::new("/nowhere/hive.toml")), HIVE).unwrap_err().to_string();
    assert!(told.contains("/nowhere/hive.toml") && told.contains("No such file"), "{told}");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hive.toml");
    std::fs::write(&path, "[hive]\nnam = \"a\"\n").unwrap();
    let told = read(Some(&path), HIVE).unwrap_err().to_string();
    assert!(told.ends_with("hive.toml:2: there is no key \"nam\" in hive: did you mean name?"), "{told}");
    std::fs::write(&path, "# nothing\n".repeat(200_000)).unwrap();
    assert!(read(Some(&path), HIVE).unwrap_err().to_string().contains("1 MiB"));
}
