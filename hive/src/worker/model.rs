//! The names of the model that a worker serves, read off its command line. Pure.

/// Flags whose value names the model, the most trusted first. `-m` has a rule of its own.
const FLAGS: [&str; 9] =
    ["--served-model-name", "--alias", "--model", "-m", "--hf-repo", "-hf", "-hfr", "--model-path", "--model-id"];
/// Longer names, in bytes, are not names: a worker's description has to fit on the wire.
const NAME_MAX: usize = 256;
/// More names than this are not kept.
const NAMES_MAX: usize = 8;

/// Every name that the command line gives to its model, the display name first; `variable` is the environment's
/// `MODEL`, the least trusted source. Empty when nothing names one.
pub fn names(command: &[String], variable: Option<&str>) -> Vec<String> {
    let mut found = Vec::new();
    for flag in FLAGS {
        values(command, flag, &mut found);
    }
    positional(command, &mut found);
    if let Some(name) = variable {
        keep(name, &mut found);
    }
    found
}

/// The values of one flag, as `flag value` and, for long flags, `flag=value`.
fn values(command: &[String], flag: &str, found: &mut Vec<String>) {
    for (at, argument) in command.iter().enumerate().skip(1) {
        if argument == flag {
            if flag == "-m" && is_python_module(command, at) {
                continue;
            }
            let several = flag == "--served-model-name";
            let rest = command.iter().skip(at + 1).take_while(|value| !value.starts_with('-'));
            for value in rest.take(if several { NAMES_MAX } else { 1 }) {
                keep(value, found);
            }
        } else if let Some(value) = argument.strip_prefix(flag).and_then(|rest| rest.strip_prefix('='))
            && flag.starts_with("--")
        {
            keep(value, found);
        }
    }
}

/// `vllm serve X`.
fn positional(command: &[String], found: &mut Vec<String>) {
    for window in command.windows(3) {
        if basename(&window[0]) == "vllm" && window[1] == "serve" && !window[2].starts_with('-') {
            keep(&window[2], found);
        }
    }
}

/// Whether the `-m` at this place is the interpreter's own: only options stand between it and a python.
fn is_python_module(command: &[String], at: usize) -> bool {
    let interpreter = command[..at].iter().rposition(|argument| !argument.starts_with('-'));
    interpreter.is_some_and(|index| {
        let name = basename(&command[index]);
        name.starts_with("python") || name.starts_with("pypy")
    })
}

fn basename(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn keep(name: &str, found: &mut Vec<String>) {
    let name = name.trim();
    if !name.is_empty() && name.len() <= NAME_MAX && found.len() < NAMES_MAX && !found.iter().any(|known| known == name)
    {
        found.push(name.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(line: &str) -> Vec<String> {
        let command: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        names(&command, None)
    }

    #[test]
    fn collect_parses_cmdline() {
        let kernel = b"llm-worker\0--model\0llama-3.2-1b\0--port\x008080\0";
        let text = std::str::from_utf8(kernel).unwrap();
        let command: Vec<String> = text.split_terminator('\0').map(str::to_owned).collect();
        assert_eq!(names(&command, None), ["llama-3.2-1b"]);
        assert!(names(&command[..1], None).is_empty(), "no flag, no model");
    }

    #[test]
    fn each_engine_names_its_model_in_its_own_way() {
        let table = [
            ("llm-worker --model llama-3.2-1b --port 8080", "llama-3.2-1b"),
            ("llm-worker --model=llama-3.2-1b", "llama-3.2-1b"),
            ("llama-server -m /m/qwen.gguf", "/m/qwen.gguf"),
            ("llama-server -m /m/qwen.gguf --alias qwen", "qwen,/m/qwen.gguf"),
            ("llama-server -hf ggml-org/gemma-3-1b", "ggml-org/gemma-3-1b"),
            ("llama-server --hf-repo ggml-org/gemma", "ggml-org/gemma"),
            ("vllm serve Qwen/Qwen3-8B --port 1", "Qwen/Qwen3-8B"),
            ("/v/bin/python3 /v/bin/vllm serve Qwen/Q --served-model-name a b --port 1", "a,b,Qwen/Q"),
            ("python3 -m vllm.entrypoints.openai.api_server --model x", "x"),
            ("python3 -u -m sglang.launch_server --model-path y", "y"),
            ("python3 serve.py -m tiny", "tiny"),
            ("text-generation-launcher --model-id big/bloom", "big/bloom"),
            ("ollama runner --model /b/sha256-1f --port 9", "/b/sha256-1f"),
        ];
        for (line, wanted) in table {
            assert_eq!(named(line).join(","), wanted, "{line:?}");
        }
    }

    #[test]
    fn a_flag_without_a_value_names_nothing() {
        for line in ["worker --model", "worker --model=", "worker --model --port 1", "python3 -m http.server", "", "x"]
        {
            assert_eq!(named(line), Vec::<String>::new(), "{line:?}");
        }
    }

    #[test]
    fn the_environment_comes_last() {
        let command = ["w".to_owned(), "--model".to_owned(), "a".to_owned()];
        assert_eq!(names(&command, Some("b")), ["a", "b"]);
        assert_eq!(names(&command[..1], Some("b")), ["b"]);
        assert_eq!(names(&command[..1], Some("")), Vec::<String>::new());
        assert_eq!(names(&command[..1], Some(&"b".repeat(100_000))), Vec::<String>::new());
    }
}
