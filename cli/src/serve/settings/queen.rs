//! `[queen]`: keys that mirror the flags of `rbee queen`, and the bounds, which are no flags but variables too.

use ::queen::Config;
use common::fields::{Fields, FileError};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A time of the queen.
pub struct Time {
    /// As the file and the flag call it.
    pub key: &'static str,
    /// Where it is kept.
    pub of: fn(&mut Config) -> &mut Duration,
}

/// Every time of the queen. Those of a silent hive come first, see [`SILENCES`].
pub const TIMES: [Time; 5] = [
    Time { key: "stale-after", of: |config| &mut config.stale },
    Time { key: "lost-after", of: |config| &mut config.lost },
    Time { key: "remove-after", of: |config| &mut config.remove },
    Time { key: "bookmark-every", of: |config| &mut config.bookmark },
    Time { key: "max-age", of: |config| &mut config.max_age },
];

/// So many of [`TIMES`] are lengths of a hive's silence, of which none may be shorter than the one before it.
pub const SILENCES: usize = 3;

/// How many of something there may be.
pub struct Bound {
    /// As the file calls it; the variable is `RBEE_` and this in capitals.
    pub key: &'static str,
    /// The least and the most that make sense.
    pub range: (u64, u64),
    /// What counts at present.
    pub get: fn(&Config) -> u64,
    /// Changes that. The number is within the range.
    pub set: fn(&mut Config, u64),
}

/// Numbers of things: up to what fits into 32 bits.
const MANY: u64 = u32::MAX as u64;

/// Every bound of the queen.
pub const BOUNDS: [Bound; 16] = [
    Bound::count("max-connections", |c| c.max_connections as u64, |c, n| c.max_connections = n as usize),
    Bound::count(
        "max-connections-per-address",
        |c| c.max_connections_per_address as u64,
        |c, n| c.max_connections_per_address = n as usize,
    ),
    Bound::count("max-streams", |c| c.max_streams.into(), |c, n| c.max_streams = n as u32),
    Bound {
        range: (8 * 1024, 1024 * 1024),
        ..Bound::count("max-header-bytes", |c| c.max_header_bytes.into(), |c, n| c.max_header_bytes = n as u32)
    },
    Bound {
        range: (1024, 64 * 1024 * 1024),
        ..Bound::count("max-request-bytes", |c| c.max_request_bytes as u64, |c, n| c.max_request_bytes = n as usize)
    },
    Bound {
        // A hive cuts its snapshots into chunks of 256 KiB.
        range: (512 * 1024, 256 * 1024 * 1024),
        ..Bound::count("max-frame-bytes", |c| c.max_frame_bytes as u64, |c, n| c.max_frame_bytes = n as usize)
    },
    Bound {
        // The largest answer, of a hundred thousand workers, has to fit.
        range: (128 * 1024 * 1024, 64 * 1024 * 1024 * 1024),
        ..Bound::count("max-unread-bytes", |c| c.max_unread_bytes as u64, |c, n| c.max_unread_bytes = n as usize)
    },
    Bound::count("max-calls", |c| c.max_calls as u64, |c, n| c.max_calls = n as usize),
    Bound::count("max-reserving", |c| c.max_reserving as u64, |c, n| c.max_reserving = n as usize),
    Bound::count("max-hive-calls", |c| c.max_hive_calls as u64, |c, n| c.max_hive_calls = n as usize),
    Bound::count("max-hive-streams", |c| c.max_hive_streams as u64, |c, n| c.max_hive_streams = n as usize),
    Bound::count("max-tunnels", |c| c.max_tunnels as u64, |c, n| c.max_tunnels = n as usize),
    Bound::count("max-hives", |c| c.max_hives as u64, |c, n| c.max_hives = n as usize),
    Bound::count("max-workers", |c| c.max_workers.into(), |c, n| c.max_workers = n as u32),
    Bound::count("max-watchers", |c| c.max_watchers as u64, |c, n| c.max_watchers = n as usize),
    Bound::count("max-watch-classes", |c| c.max_watch_classes as u64, |c, n| c.max_watch_classes = n as usize),
];

impl Bound {
    /// Of things that are counted.
    const fn count(key: &'static str, get: fn(&Config) -> u64, set: fn(&mut Config, u64)) -> Self {
        Self { key, range: (1, MANY), get, set }
    }

    /// Reads a number within the range.
    ///
    /// # Errors
    /// What is accepted, to stand behind the name.
    pub fn check(&self, number: Option<u64>) -> Result<u64, String> {
        let (least, most) = self.range;
        let fits = number.filter(|number| (least..=most).contains(number));
        fits.ok_or_else(|| format!("use a whole number, {least} to {most}"))
    }

    /// The variable that sets it: "RBEE_MAX_HIVES".
    pub fn variable(&self) -> String {
        format!("RBEE_{}", self.key.replace('-', "_").to_ascii_uppercase())
    }
}

/// What a file says of the queen. What it leaves open is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueenSection {
    /// `listen`
    pub listen: Option<SocketAddr>,
    /// `insecure`
    pub insecure: Option<bool>,
    /// `allow-host`: one name, or a list of them.
    pub allow_host: Option<Vec<String>>,
    /// `tls-cert`
    pub tls_cert: Option<PathBuf>,
    /// `tls-key`
    pub tls_key: Option<PathBuf>,
    /// `token-dir`
    pub token_dir: Option<PathBuf>,
    /// Those of [`TIMES`] that are there.
    pub times: BTreeMap<&'static str, Duration>,
    /// Those of [`BOUNDS`] that are there.
    pub bounds: BTreeMap<&'static str, u64>,
}

/// Reads the table.
pub fn section(all: &DeTable<'_>) -> Result<QueenSection, FileError> {
    let mut fields = Fields::new("queen", all);
    let mut section = QueenSection {
        listen: fields.parsed("listen", "use IP:PORT in quotes", |value| value.as_str()?.parse().ok())?,
        insecure: fields.parsed("insecure", "use true or false", DeValue::as_bool)?,
        allow_host: fields.texts("allow-host")?,
        tls_cert: fields.text("tls-cert")?.map(PathBuf::from),
        tls_key: fields.text("tls-key")?.map(PathBuf::from),
        token_dir: fields.text("token-dir")?.map(PathBuf::from),
        ..QueenSection::default()
    };
    for time in &TIMES {
        let length = |value: &DeValue<'_>| crate::show::units::parse_duration(value.as_str()?).ok();
        if let Some(length) = fields.parsed(time.key, "use a time in quotes, such as \"3s\"", length)? {
            section.times.insert(time.key, length);
        }
    }
    for bound in &BOUNDS {
        let Some(value) = fields.take(bound.key) else { continue };
        let number = bound.check(whole(value)).map_err(|accepted| fields.wrong(bound.key, value, &accepted))?;
        section.bounds.insert(bound.key, number);
    }
    fields.end()?;
    Ok(section)
}

fn whole(value: &Spanned<DeValue<'_>>) -> Option<u64> {
    match value.get_ref() {
        DeValue::Integer(number) => u64::from_str_radix(number.as_str(), number.radix()).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::settings::parse;

    fn told(text: &str) -> String {
        parse(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn a_whole_table_is_read() {
        let text = "[queen]\nlisten = \"0.0.0.0:1\"\ninsecure = true\nallow-host = \"q.lan\"\ntls-cert = \"/c\"\n\
                    tls-key = \"/k\"\ntoken-dir = \"/t\"\nlost-after = \"20s\"\nmax-hives = 0x10\nmax-connections = 7_0\n";
        let queen = parse(text.as_bytes()).unwrap().queen;
        assert_eq!((queen.listen, queen.insecure), ("0.0.0.0:1".parse().ok(), Some(true)));
        assert_eq!((queen.tls_cert, queen.tls_key), (Some("/c".into()), Some("/k".into())));
        assert_eq!((queen.token_dir, queen.allow_host), (Some("/t".into()), Some(vec!["q.lan".to_owned()])));
        assert_eq!(queen.times, BTreeMap::from([("lost-after", Duration::from_secs(20))]));
        assert_eq!(queen.bounds, BTreeMap::from([("max-hives", 16), ("max-connections", 70)]));
    }

    #[test]
    fn a_mistake_is_told_with_its_line_and_what_is_accepted() {
        assert_eq!(
            told("[queen]\nmax-hive = 1\n"),
            "2: there is no key \"max-hive\" in queen: did you mean max-hives?"
        );
        for (text, wanted) in [
            ("[queen]\nmax-hives = 0\n", "2: queen.max-hives: use a whole number, 1 to 4294967295"),
            ("[queen]\nmax-hives = \"1\"\n", "2: queen.max-hives: use a whole number"),
            ("[queen]\nmax-frame-bytes = 1\n", "2: queen.max-frame-bytes: use a whole number, 524288 to 268435456"),
            ("[queen]\nstale-after = 3\n", "2: queen.stale-after: use a time in quotes"),
            ("[queen]\nlisten = \"queen:1\"\n", "2: queen.listen: use IP:PORT in quotes"),
            ("[queen]\ninsecure = \"yes\"\n", "2: queen.insecure: use true or false"),
            ("queen = 1\n", "1: queen: use a table, [queen]"),
            ("[quen]\n", "1: there is no key \"quen\": did you mean queen?"),
        ] {
            let told = told(text);
            assert!(told.starts_with(wanted), "{text:?}: {told}");
        }
    }

    #[test]
    fn every_bound_keeps_what_it_is_set_to() {
        for bound in &BOUNDS {
            let mut config = Config::default();
            assert_eq!(bound.check(Some((bound.get)(&config))), Ok((bound.get)(&config)), "{}", bound.key);
            for number in [bound.range.0, bound.range.1] {
                (bound.set)(&mut config, number);
                assert_eq!((bound.get)(&config), number, "{}", bound.key);
            }
        }
        assert_eq!(BOUNDS[0].variable(), "RBEE_MAX_CONNECTIONS");
    }
}
