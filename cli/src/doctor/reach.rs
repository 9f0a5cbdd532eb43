//! What answers: the queen, her port, the hive of this machine.

use super::Finding;
use crate::args::Global;
use crate::failure::Failure;
use crate::verbs::{VERSION, hives};
use crate::{connect, locate};
use std::net::{Ipv4Addr, TcpListener};

/// What the hive of this machine says of itself, and where it listens.
pub type Described = Result<(String, proto::DescribeHiveResponse), Failure>;

/// All of it. `here`: what the hive of this machine says of itself.
pub async fn check(global: &Global, here: Described) -> Vec<Finding> {
    let hives = hives::list(global).await;
    let url = global.queen.join(", ");
    let queen = queen(&url, hives.as_ref().map(|answer| answer.hives.len()), &port_of(&url).map_or(Ok(()), free));
    let mut findings = vec![queen];
    if let Ok(answer) = &hives {
        findings.push(versions(&answer.hives));
    }
    findings.push(hive(here));
    findings
}

/// Of a queen on this machine.
fn port_of(url: &str) -> Option<u16> {
    let authority = url.split_once("://")?.1.trim_end_matches('/');
    let (host, port) = authority.rsplit_once(':')?;
    matches!(host, "127.0.0.1" | "localhost").then_some(())?;
    port.parse().ok()
}

fn free(port: u16) -> Result<(), String> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map(drop).map_err(|error| error.to_string())
}

fn queen(url: &str, hives: Result<usize, &Failure>, free: &Result<(), String>) -> Finding {
    match (hives, free) {
        (Ok(hives), _) => Finding::ok("queen", format!("answers at {url}, knows {hives} hives")),
        (Err(failure), Err(_)) => Finding::broken(
            "queen",
            format!("something listens at {url}, but no queen answers us there: {failure}"),
            "if it is a queen: --tls-ca and --token-file; else end that program, or `rbee up --listen 127.0.0.1:7834` and \
             RBEE_QUEEN=http://127.0.0.1:7834",
        ),
        (Err(Failure::Unreachable(_)), Ok(())) => {
            Finding::reduced("queen", format!("none answers at {url}: nothing can be listed or found"), "rbee up")
        }
        (Err(failure), Ok(())) => Finding::reduced(
            "queen",
            format!("the queen at {url} does not answer us: {failure}"),
            "a certificate: --tls-ca; a token: --token-file",
        ),
    }
}

fn versions(hives: &[proto::Hive]) -> Finding {
    let other: Vec<String> = hives
        .iter()
        .filter(|hive| hive.version != VERSION)
        .map(|hive| format!("{} has {}", hive.id, hive.version))
        .collect();
    if other.is_empty() {
        return Finding::ok("hives", format!("all have version {VERSION}"));
    }
    let says = format!("not all have version {VERSION}: {}", other.join(", "));
    Finding::reduced("hives", says, "install the same version everywhere; workers live on while a hive restarts")
}

fn hive(here: Described) -> Finding {
    match here {
        Ok((socket, answer)) => described(&socket, &answer),
        Err(failure) => Finding::reduced(
            "hive",
            format!("none answers on this machine: no worker can be started here ({failure})"),
            "rbee up, or rbee hive",
        ),
    }
}

/// Asks the hive of this machine.
pub async fn describe(global: &Global) -> Described {
    let socket = locate::socket(global, None).await?;
    let mut client = connect::hive(&socket).await?;
    let asking = client.describe_hive(proto::DescribeHiveRequest::default());
    let answer = connect::answer(global.timeout, "ask the hive what it is", asking).await?;
    Ok((socket.path.display().to_string(), answer))
}

fn described(socket: &str, answer: &proto::DescribeHiveResponse) -> Finding {
    let hive = answer.hive.clone().unwrap_or_default();
    let says = format!("{} answers at {socket}, pid {}", hive.id, answer.pid);
    if let Some(link) = answer.queens.iter().find(|link| !link.connected) {
        let says = format!("{says}, but does not reach its queen at {}: {}", link.url, link.error);
        return Finding::reduced("hive", says, "start that queen, or give the hive another --queen");
    }
    if !hive.health_reasons.is_empty() {
        let says = format!("{says}, with less than it could have: {}", hive.health_reasons.join("; "));
        return Finding::reduced("hive", says, "see the lines above");
    }
    Finding::ok("hive", says)
}

#[cfg(test)]
mod tests {
    use super::super::Grade;
    use super::*;

    #[test]
    fn a_port_taken_by_a_stranger_is_broken_and_a_free_one_is_not() {
        let none = Failure::Unreachable(String::new());
        assert_eq!(queen("u", Ok(1), &Err("in use".into())).grade, Grade::Ok);
        assert_eq!(queen("u", Err(&none), &Err("in use".into())).grade, Grade::Broken);
        assert_eq!(queen("u", Err(&none), &Ok(())).grade, Grade::Reduced);
    }

    #[test]
    fn only_a_port_of_this_machine_is_tried() {
        assert_eq!(port_of("http://127.0.0.1:7833"), Some(7833));
        assert_eq!(port_of("http://localhost:1/"), Some(1));
        assert_eq!(port_of("http://10.0.0.1:7833"), None);
    }

    #[test]
    fn another_version_is_named() {
        let hive = |version: &str| proto::Hive { id: "box".into(), version: version.into(), ..Default::default() };
        assert_eq!(versions(&[hive(VERSION)]).grade, Grade::Ok);
        assert!(versions(&[hive("0.0.1")]).says.contains("box has 0.0.1"));
    }

    #[test]
    fn a_hive_without_its_queen_is_reduced() {
        let link = proto::QueenLink { url: "http://q".into(), connected: false, error: "refused".into() };
        let answer = proto::DescribeHiveResponse { queens: vec![link], ..Default::default() };
        assert_eq!(described("/s", &answer).grade, Grade::Reduced);
    }
}
