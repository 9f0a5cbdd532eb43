//! A command line as the world may see it: escaped where it is not UTF-8, secrets masked, cut. Pure.

/// The longest command line that is shown, in bytes.
const SHOWN_MAX: usize = 4096;
/// What stands where it was cut.
const CUT: &str = "…";
/// What stands in the place of a secret.
const MASK: &str = "***";
/// Tokens of well-known services begin like this.
const TOKEN_PREFIXES: [&str; 4] = ["hf_", "sk-", "ghp_", "nvapi-"];
/// What may stand around the words of a script.
const QUOTES: [char; 4] = ['"', '\'', ';', '&'];
/// Shorter words with such a beginning are ordinary words.
const TOKEN_MIN: usize = 10;

/// Arguments as text: what is not UTF-8 becomes `\xNN`.
pub fn escaped(arguments: &[Vec<u8>]) -> Vec<String> {
    arguments.iter().map(|argument| escape(argument)).collect()
}

/// What the world is shown of a command line: secrets masked, at most 4 KiB with an end to each argument, "…" where it was
/// cut.
pub fn shown(command: &[String]) -> Vec<String> {
    // There is always room for the sign that something is missing.
    let mut left = SHOWN_MAX - CUT.len() - 1;
    let mut shown = Vec::new();
    let mut secret_next = false;
    for argument in command {
        let masked = if secret_next { MASK.to_owned() } else { mask(argument) };
        secret_next = !secret_next && is_secret_flag(argument);
        // Each costs something, even an empty one: a million of them would be too many for the wire.
        if masked.len() >= left {
            let end = (0..=left.min(masked.len())).rev().find(|at| masked.is_char_boundary(*at)).unwrap_or(0);
            shown.push(format!("{}{CUT}", &masked[..end]));
            break;
        }
        left -= masked.len() + 1;
        shown.push(masked);
    }
    shown
}

/// A stable fingerprint of a command line, so that none need be stored in clear (FNV-1a, 64 bits).
pub fn digest(command: &[String]) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in command.iter().flat_map(|argument| argument.bytes().chain([0])) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("{hash:016x}")
}

fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

/// Masks the secrets of one argument. A script handed to a shell is an argument too, so its words are looked at as
/// well: what stands between them stays as it is.
fn mask(argument: &str) -> String {
    if let Some(masked) = mask_named(argument) {
        return masked;
    }
    if !argument.contains(char::is_whitespace) {
        return mask_tokens(&mask_passwords(argument));
    }
    let mut text = String::with_capacity(argument.len());
    let mut secret_next = false;
    for piece in argument.split_inclusive(char::is_whitespace) {
        let word = piece.trim_end();
        let bare = word.trim_matches(QUOTES);
        if bare.is_empty() {
            text.push_str(piece);
            continue;
        }
        let masked = if secret_next { MASK.to_owned() } else { mask(bare) };
        text.push_str(&word.replacen(bare, &masked, 1));
        text.push_str(&piece[word.len()..]);
        secret_next = !secret_next && is_secret_flag(bare);
    }
    text
}

/// Whether the next argument is a secret.
fn is_secret_flag(argument: &str) -> bool {
    argument.starts_with('-') && !argument.contains('=') && is_secret(argument)
}

/// Masks `KEY=value`, `--token=value` and the value of a header; `None` where there is no such thing.
fn mask_named(argument: &str) -> Option<String> {
    let first_word = argument.split(char::is_whitespace).next().unwrap_or("");
    for (at, _) in first_word.match_indices('=').filter(|(at, _)| at + 1 < argument.len()) {
        let before = &argument[..at];
        let name = before.rsplit(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '_' | '-' | '.')).next();
        if name.is_some_and(is_secret) {
            return Some(format!("{}={MASK}", mask_tokens(&mask_passwords(before))));
        }
    }
    let lower = argument.to_ascii_lowercase();
    ["authorization:", "x-api-key:", "bearer "].iter().find_map(|header| {
        let at = lower.find(header)?;
        // What stands before it may hold secrets of its own.
        Some(format!("{}{} {MASK}", mask(&argument[..at]), argument[at..at + header.len()].trim_end()))
    })
}

/// `scheme://user:password@host` → `scheme://user:***@host`.
fn mask_passwords(argument: &str) -> String {
    let mut text = String::with_capacity(argument.len());
    let mut rest = argument;
    while let Some(start) = rest.find("://").map(|at| at + 3) {
        text.push_str(&rest[..start]);
        rest = &rest[start..];
        let authority = rest.split(['/', '?', '#']).next().unwrap_or("");
        let login = authority.rsplit_once('@').map(|(login, _)| login);
        if let Some((login, (user, _))) = login.and_then(|login| Some((login, login.split_once(':')?))) {
            text.push_str(&format!("{user}:{MASK}"));
            rest = &rest[login.len()..];
        }
    }
    text.push_str(rest);
    text
}

fn mask_tokens(argument: &str) -> String {
    let in_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let mut text = String::with_capacity(argument.len());
    let mut rest = argument;
    while !rest.is_empty() {
        let end = rest.find(|c| !in_word(c)).unwrap_or(rest.len());
        let word = &rest[..end];
        let token = word.len() >= TOKEN_MIN && TOKEN_PREFIXES.iter().any(|prefix| word.starts_with(prefix));
        text.push_str(if token { MASK } else { word });
        let gap = rest[end..].find(in_word).map_or(rest.len(), |at| end + at);
        text.push_str(&rest[end..gap]);
        rest = &rest[gap..];
    }
    text
}

/// Whether a flag or variable of this name carries a secret. `--max-tokens` and `--tokenizer` do not.
fn is_secret(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    let words: Vec<&str> = lower.split(['-', '_', '.']).filter(|word| !word.is_empty()).collect();
    match words.as_slice() {
        [.., before, "key"] => matches!(*before, "api" | "access" | "secret" | "private" | "auth" | "encryption"),
        [.., last] => {
            matches!(
                *last,
                "token"
                    | "password"
                    | "passwd"
                    | "passphrase"
                    | "secret"
                    | "apikey"
                    | "credential"
                    | "credentials"
                    | "key"
            ) && (*last != "key" || name.chars().all(|c| c.is_ascii_uppercase()))
        }
        [] => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> String {
        let command: Vec<String> = text.split(' ').map(str::to_owned).collect();
        shown(&command).join(" ")
    }

    #[test]
    fn b4_secrets_are_masked() {
        let table = [
            ("w --api-key abc --port 1", "w --api-key *** --port 1"),
            ("w --api-key=abc", "w --api-key=***"),
            ("w --hf-token hf_abcdefghij", "w --hf-token ***"),
            ("w --password p --token t", "w --password *** --token ***"),
            ("env OPENAI_API_KEY=abc HF_TOKEN=x w", "env OPENAI_API_KEY=*** HF_TOKEN=*** w"),
            ("KEY=abc w", "KEY=*** w"),
            ("w sk-abcdefghijk", "w ***"),
            ("w url?x=hf_abcdefghij&y", "w url?x=***&y"),
            ("w http://me:pw@host/x", "w http://me:***@host/x"),
            ("w http://me:pw@host/?a=b&api_key=c", "w http://me:***@host/?a=b&api_key=***"),
        ];
        for (given, wanted) in table {
            assert_eq!(line(given), wanted);
        }
    }

    #[test]
    fn b4_secrets_in_a_script_are_masked() {
        let script = "export MY_TOKEN=abc; exec w --api-key 'def' --port 1 --password=ghi; true";
        let command = ["sh", "-c", script].map(str::to_owned);
        let wanted = "export MY_TOKEN=***; exec w --api-key '***' --port 1 --password=***; true";
        assert_eq!(shown(&command)[2], wanted);
        let both = "w --token abc http://a/,http://me:pw@host hf_abcdefghij";
        assert_eq!(shown(&[both.to_owned()]), ["w --token *** http://a/,http://me:***@host ***"]);
        let fetch = "curl http://me:pw@host --token abc -H 'Authorization: Bearer def' x";
        assert_eq!(shown(&[fetch.to_owned()]), ["curl http://me:***@host --token *** -H 'Authorization: ***"]);
        let plain = "while  :; do\n sleep 1; done &";
        assert_eq!(shown(&[plain.to_owned()]), [plain]);
    }

    #[test]
    fn ordinary_arguments_stay_as_they_are() {
        for text in
            ["w --max-tokens 100", "w --tokenizer x", "w --model=a sk-1", "task-force-delta-nine", "a=b", "--key k"]
        {
            assert_eq!(line(text), text);
        }
    }

    #[test]
    fn b4_a_command_line_is_escaped_and_cut() {
        assert_eq!(escaped(&[b"a\xff\xc3\xa4b".to_vec()]), ["a\\xffäb"]);
        let long = shown(&["w".to_owned(), "ä".repeat(5000), "z".to_owned()]);
        assert_eq!(long.len(), 2);
        assert!(long.concat().len() <= SHOWN_MAX && long[1].ends_with('…'));
        let many = shown(&vec![String::new(); 60_000]);
        assert!(many.len() <= SHOWN_MAX && many.last().unwrap() == CUT);
        for before in SHOWN_MAX - 10..SHOWN_MAX + 2 {
            let shown = shown(&["w".repeat(before), "xyz".to_owned()]);
            assert!(shown.iter().map(|argument| argument.len() + 1).sum::<usize>() <= SHOWN_MAX, "{before}");
        }
    }

    #[test]
    fn a_digest_tells_commands_apart() {
        let digest = |parts: &[&str]| digest(&parts.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>());
        assert_eq!(digest(&["a", "b"]), digest(&["a", "b"]));
        assert_ne!(digest(&["a", "b"]), digest(&["ab"]));
    }
}
