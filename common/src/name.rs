//! Names of hives and workers, parsed once where they enter. A name is also a directory below the slice, so the
//! pattern keeps out everything that could leave it or collide with the kernel's own files.

use std::fmt;

/// The longest a single name may be, in bytes.
const NAME_MAX: usize = 64;

/// Prefixes of the files that the kernel itself puts into a cgroup directory.
const KERNEL_PREFIXES: [&str; 12] =
    ["cgroup", "cpu", "cpuacct", "cpuset", "memory", "io", "pids", "hugetlb", "rdma", "misc", "dmem", "irq"];

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Length or characters.
    #[error(
        "{field} {text:?} is not a name: use 1 to 64 of a-z, 0-9, '.', '_' and '-', beginning and ending with a letter or digit, without \"..\""
    )]
    Pattern {
        /// What was being named.
        field: &'static str,
        /// What was given, cut at 80 characters.
        text: String,
    },
    /// It would collide with one of the kernel's files.
    #[error("{field} {text:?} begins with {prefix:?} and a dot, which the kernel keeps for its own files")]
    Kernel {
        /// What was being named.
        field: &'static str,
        /// What was given.
        text: String,
        /// The reserved prefix.
        prefix: &'static str,
    },
    /// Not `group/instance` or `hive/group/instance`.
    #[error("{text:?} is not a worker's name: use hive/group/instance")]
    Shape {
        /// What was given, cut at 80 characters.
        text: String,
    },
}

fn check(field: &'static str, text: &str) -> Result<(), NameError> {
    let edge = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let inner = |byte: u8| edge(byte) || matches!(byte, b'.' | b'_' | b'-');
    let bytes = text.as_bytes();
    let fits = !bytes.is_empty()
        && bytes.len() <= NAME_MAX
        && edge(bytes[0])
        && edge(bytes[bytes.len() - 1])
        && bytes.iter().copied().all(inner)
        && !text.contains("..");
    if !fits {
        return Err(NameError::Pattern { field, text: text.chars().take(80).collect() });
    }
    for prefix in KERNEL_PREFIXES {
        if text.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('.')) {
            return Err(NameError::Kernel { field, text: text.to_owned(), prefix });
        }
    }
    Ok(())
}

/// Makes a valid name out of any text, a hostname for instance: lower-cased, other characters become dashes.
pub fn fit_name(text: &str) -> String {
    let mapped: String = text
        .chars()
        .map(|c| c.to_ascii_lowercase())
        .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' { c } else { '-' })
        .take(NAME_MAX)
        .collect();
    let trimmed = mapped.trim_matches(|c| c == '-' || c == '_');
    if trimmed.is_empty() { "hive".to_owned() } else { trimmed.to_owned() }
}

/// The name of a hive.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HiveId(String);

impl HiveId {
    /// Parses a hive's name. Errors name the pattern.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        check("hive", text)?;
        Ok(Self(text.to_owned()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HiveId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a worker on one hive: `group/instance`, and the path of its cgroup below the slice.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId {
    group: String,
    instance: String,
}

impl WorkerId {
    /// From its two parts. Errors name the part and the pattern.
    pub fn new(group: &str, instance: &str) -> Result<Self, NameError> {
        check("group", group)?;
        check("instance", instance)?;
        Ok(Self { group: group.to_owned(), instance: instance.to_owned() })
    }

    /// Parses `group/instance`, or `hive/group/instance` (the hive's part is returned beside it).
    pub fn parse(text: &str) -> Result<(Option<HiveId>, Self), NameError> {
        let parts: Vec<&str> = text.split('/').collect();
        match parts.as_slice() {
            [group, instance] => Ok((None, Self::new(group, instance)?)),
            [hive, group, instance] => Ok((Some(HiveId::parse(hive)?), Self::new(group, instance)?)),
            _ => Err(NameError::Shape { text: text.chars().take(80).collect() }),
        }
    }

    /// First part.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// Second part.
    pub fn instance(&self) -> &str {
        &self.instance
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.group, self.instance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b3_names_that_could_leave_the_slice_are_refused() {
        for bad in ["", "../x", "..", ".", "a..b", "-a", "a-", "A", "a/b", "a b", "ä", "a\0b"] {
            assert!(WorkerId::new("llm", bad).is_err(), "{bad:?}");
            assert!(WorkerId::new(bad, "8080").is_err(), "{bad:?}");
        }
        assert!(HiveId::parse(&"a".repeat(64)).is_ok());
        assert!(HiveId::parse(&"a".repeat(65)).is_err());
    }

    #[test]
    fn b3_names_of_kernel_files_are_refused() {
        assert!(matches!(WorkerId::new("llm", "memory.max"), Err(NameError::Kernel { prefix: "memory", .. })));
        assert!(WorkerId::new("llm", "cgroup.procs").is_err());
        assert!(WorkerId::new("llm", "memory").is_ok());
    }

    #[test]
    fn a_worker_is_named_with_or_without_its_hive() {
        let (hive, worker) = WorkerId::parse("box/llm/8080").unwrap();
        assert_eq!((hive.unwrap().as_str(), worker.to_string().as_str()), ("box", "llm/8080"));
        assert_eq!(WorkerId::parse("llm/8080").unwrap().0, None);
        assert!(WorkerId::parse("8080").is_err());
    }

    #[test]
    fn any_hostname_can_be_made_to_fit() {
        for host in ["GPU-Box.local", "", "---", "ünï", &"x".repeat(200), "a_"] {
            assert!(HiveId::parse(&fit_name(host)).is_ok(), "{host:?} -> {:?}", fit_name(host));
        }
        assert_eq!(fit_name("GPU-Box.local"), "gpu-box-local");
    }
}
