//! `rbee queen`: what she is told, by flags and environment, else the configuration file, else the defaults.

use super::agent::{Picked, Source, pick};
use super::settings::queen::{BOUNDS, QueenSection, SILENCES, TIMES};
use super::settings::{self};
use super::stop_signal;
use crate::args::{Queen, QueenAlone};
use crate::failure::{Failure, causes};
use crate::terminal;
use common::tls::TlsFiles;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tracing::warn;

/// Runs the control plane until a signal ends it.
pub async fn run(args: QueenAlone) -> Result<(), Failure> {
    let stopping = stop_signal()?;
    let file = settings::read(args.config.as_deref(), settings::QUEEN)?.map(|(_, file)| file).unwrap_or_default();
    let queen = bind(&args.queen, &file.queen).await?;
    terminal::put(format!("{}/\n", url(&queen)))?;
    queen.run(stopping).await.map_err(|error| Failure::failed("the queen ended", &error))
}

/// Takes the port.
pub async fn bind(args: &Queen, file: &QueenSection) -> Result<::queen::Queen, Failure> {
    let mut choices = choose(args, file, |name| std::env::var(name).ok())?;
    choices.fit_connections(super::raise_open_files());
    let config = choices.config()?;
    ::queen::Queen::bind(config).await.map_err(|error| Failure::Failed(format!("failed to {}", causes(&error))))
}

/// Every setting of a queen that a file can hold, and where each comes from.
#[derive(Debug, Clone)]
pub struct Choices {
    pub listen: Picked<SocketAddr>,
    pub insecure: Picked<bool>,
    pub allow_host: Picked<Vec<String>>,
    pub tls_cert: Picked<Option<PathBuf>>,
    pub tls_key: Picked<Option<PathBuf>>,
    pub token_dir: Picked<Option<PathBuf>>,
    /// In the order of [`TIMES`].
    pub times: Vec<Picked<Duration>>,
    /// In the order of [`BOUNDS`].
    pub bounds: Vec<Picked<u64>>,
}

/// Decides each setting. `variable` looks into the environment for what has no flag.
pub fn choose(
    args: &Queen,
    file: &QueenSection,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Choices, Failure> {
    let mut default = ::queen::Config::default();
    let given = [args.stale_after, args.lost_after, args.remove_after, args.bookmark_every, args.max_age];
    let times = TIMES.iter().zip(given);
    let times = times.map(|(time, given)| pick(given, file.times.get(time.key).copied(), || *(time.of)(&mut default)));
    let times = times.collect();
    let bounds = BOUNDS.iter().map(|bound| {
        let text = variable(&bound.variable()).filter(|text| !text.is_empty());
        let given = text.map(|text| bound.check(text.trim().parse().ok())).transpose();
        let given = given.map_err(|accepted| Failure::Usage(format!("{}: {accepted}", bound.variable())))?;
        Ok(pick(given, file.bounds.get(bound.key).copied(), || (bound.get)(&::queen::Config::default())))
    });
    let path = |given: &Option<PathBuf>, file: &Option<PathBuf>| {
        pick(given.clone().map(Some), file.clone().map(Some), || None)
    };
    let hosts = (!args.allow_host.is_empty()).then(|| args.allow_host.clone());
    Ok(Choices {
        listen: pick(args.listen, file.listen, default_listen),
        insecure: pick(args.insecure.then_some(true), file.insecure, || false),
        allow_host: pick(hosts, file.allow_host.clone(), Vec::new),
        tls_cert: path(&args.tls_cert, &file.tls_cert),
        tls_key: path(&args.tls_key, &file.tls_key),
        token_dir: path(&args.token_dir, &file.token_dir),
        times,
        bounds: bounds.collect::<Result<_, Failure>>()?,
    })
}

fn default_listen() -> SocketAddr {
    ::queen::Config::default().listen
}

impl Choices {
    /// As the queen takes it.
    fn config(self) -> Result<::queen::Config, Failure> {
        self.in_order()?;
        let tls = match (self.tls_cert.value, self.tls_key.value) {
            (Some(cert), Some(key)) => Some(TlsFiles { cert, key }),
            (None, None) => None,
            _ => {
                let words = "a certificate and its key come together: give both --tls-cert and --tls-key";
                return Err(Failure::Usage(words.to_owned()));
            }
        };
        let mut config = ::queen::Config {
            listen: self.listen.value,
            insecure: self.insecure.value,
            allowed_hosts: self.allow_host.value,
            token_dir: self.token_dir.value,
            tls,
            ..::queen::Config::default()
        };
        for (time, picked) in TIMES.iter().zip(self.times) {
            *(time.of)(&mut config) = picked.value;
        }
        for (bound, picked) in BOUNDS.iter().zip(self.bounds) {
            (bound.set)(&mut config, picked.value);
        }
        Ok(config)
    }

    /// A hive is stale before it is lost, and lost before it is removed.
    ///
    /// # Errors
    /// `Usage` when these times say otherwise; it names two of them.
    pub fn in_order(&self) -> Result<(), Failure> {
        let said = |key: &str, time: &Picked<Duration>| {
            let default = if time.from == Source::Default { " (the default)" } else { "" };
            format!("{key} {:?}{default}", time.value)
        };
        let silences = || TIMES.iter().zip(&self.times).take(SILENCES);
        match silences().zip(silences().skip(1)).find(|((_, sooner), (_, later))| sooner.value > later.value) {
            None => Ok(()),
            Some(((first, sooner), (second, later))) => Err(Failure::Usage(format!(
                "{} is longer than {}: a hive is first stale, then lost, then removed",
                said(first.key, sooner),
                said(second.key, later)
            ))),
        }
    }

    /// Each connection is an open file. By default there are no more of them than may be open: whoever comes then is told
    /// to come back, which nobody is who finds no file.
    fn fit_connections(&mut self, allowed: u64) {
        let bounds = BOUNDS.iter().zip(&mut self.bounds).filter(|(bound, _)| bound.key == "max-connections");
        for (_, Picked { value, from }) in bounds {
            if *from == Source::Default {
                *value = allowed.clamp(1, *value);
            } else if allowed < *value {
                warn!(allowed, max_connections = *value, "the limit on open files is below the bound on connections");
            }
        }
    }

    /// Each setting as a line of a file would say it: key, value, and where it comes from.
    pub fn lines(&self, quoted: impl Fn(&str) -> String) -> Vec<(&'static str, String, Source)> {
        let hosts: Vec<String> = self.allow_host.value.iter().map(|host| quoted(host)).collect();
        let mut lines = vec![
            ("listen", quoted(&self.listen.value.to_string()), self.listen.from),
            ("insecure", self.insecure.value.to_string(), self.insecure.from),
            ("allow-host", format!("[{}]", hosts.join(", ")), self.allow_host.from),
        ];
        let path = |path: &Path| quoted(&path.display().to_string());
        for (key, picked) in [("tls-cert", &self.tls_cert), ("tls-key", &self.tls_key), ("token-dir", &self.token_dir)]
        {
            if let Some(value) = &picked.value {
                lines.push((key, path(value), picked.from));
            }
        }
        for (time, picked) in TIMES.iter().zip(&self.times) {
            lines.push((time.key, quoted(&format!("{}ms", picked.value.as_millis())), picked.from));
        }
        for (bound, picked) in BOUNDS.iter().zip(&self.bounds) {
            lines.push((bound.key, picked.value.to_string(), picked.from));
        }
        lines
    }
}

/// Where a queen is reached from this machine.
pub fn url(queen: &::queen::Queen) -> String {
    local(queen.address(), queen.speaks_tls())
}

fn local(address: SocketAddr, tls: bool) -> String {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        other => other,
    };
    let scheme = if tls { "https" } else { "http" };
    format!("{scheme}://{}", SocketAddr::new(ip, address.port()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{self, Verb};

    fn chosen(words: &[&str], file: &str, variable: impl Fn(&str) -> Option<String>) -> Result<Choices, Failure> {
        let cli = args::parse(["rbee", "queen"].iter().chain(words).map(Into::into)).unwrap();
        let Verb::Queen(queen) = cli.verb else { panic!("not queen") };
        choose(&queen.queen, &settings::parse(file.as_bytes()).unwrap().queen, variable)
    }

    #[test]
    fn a_queen_on_all_addresses_is_reached_over_loopback() {
        assert_eq!(local("0.0.0.0:7833".parse().unwrap(), false), "http://127.0.0.1:7833");
        assert_eq!(local("[::]:1".parse().unwrap(), true), "https://[::1]:1");
        assert_eq!(local("10.0.0.1:1".parse().unwrap(), true), "https://10.0.0.1:1");
    }

    #[test]
    fn by_default_no_more_connections_are_taken_than_files_may_be_open() {
        let bound = |file: &str, allowed| {
            let mut choices = chosen(&[], file, |_| None).unwrap();
            choices.fit_connections(allowed);
            choices.config().unwrap().max_connections
        };
        assert_eq!([bound("", 4_000), bound("", 1 << 40)], [4_000, 49_152]);
        assert_eq!(bound("[queen]\nmax-connections = 5000\n", 4_000), 5_000, "whoever says so is warned");
    }

    #[test]
    fn flags_beat_variables_beat_the_file_beats_the_defaults() {
        let file = "[queen]\nlost-after = \"20s\"\nstale-after = \"5s\"\nmax-hives = 5\nmax-watchers = 6\ntls-cert = \"/c\"\n\
                    tls-key = \"/k\"\n";
        let variable = |name: &str| (name == "RBEE_MAX_HIVES").then(|| "7".to_owned());
        let choices = chosen(&["--stale-after", "1s", "--token-dir", "/t"], file, variable).unwrap();
        let config = choices.clone().config().unwrap();
        assert_eq!((config.stale, config.lost), (Duration::from_secs(1), Duration::from_secs(20)));
        assert_eq!((config.max_hives, config.max_watchers, config.max_calls), (7, 6, 1_024));
        assert_eq!(config.tls, Some(TlsFiles { cert: "/c".into(), key: "/k".into() }));
        let from =
            |key: &str| choices.lines(|text| format!("{text:?}")).into_iter().find(|line| line.0 == key).unwrap().2;
        let all =
            ["stale-after", "token-dir", "max-hives", "lost-after", "max-watchers", "max-calls", "listen"].map(from);
        use Source::{Default, File, Given};
        assert_eq!(all, [Given, Given, Given, File, File, Default, Default]);
    }

    #[test]
    fn times_that_contradict_one_another_are_refused() {
        let config = |words: &[&str], file: &str| chosen(words, file, |_| None).unwrap().config();
        let told = |words: &[&str], file: &str| match config(words, file).unwrap_err() {
            Failure::Usage(words) => words.split_once(": a hive is").map(|(words, _)| words.to_owned()),
            other => panic!("{other}"),
        };
        let wanted = "stale-after 3s (the default) is longer than lost-after 1.5s";
        assert_eq!(told(&["--lost-after", "1500ms"], "").as_deref(), Some(wanted));
        let wanted = "lost-after 120s is longer than remove-after 90s (the default)";
        assert_eq!(told(&[], "[queen]\nlost-after = \"2m\"\n").as_deref(), Some(wanted));
        let wanted = "stale-after 10.1s is longer than lost-after 10s";
        assert_eq!(told(&["--stale-after", "10.1s"], "[queen]\nlost-after = \"10s\"\n").as_deref(), Some(wanted));
        let alike = ["--stale-after", "5s", "--lost-after", "5s", "--remove-after", "5s"];
        assert!(config(&alike, "").is_ok() && config(&["--max-age", "1d"], "").is_ok());
    }

    #[test]
    fn what_cannot_be_is_told_by_its_name() {
        let told = chosen(&[], "", |_| Some("many".to_owned())).unwrap_err().to_string();
        assert_eq!(told, "RBEE_MAX_CONNECTIONS: use a whole number, 1 to 4294967295");
        let half = chosen(&["--tls-cert", "/c"], "", |_| None).unwrap().config().unwrap_err().to_string();
        assert!(half.contains("--tls-cert and --tls-key"), "{half}");
    }
}
