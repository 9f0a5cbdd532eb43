//! `rbee reserve`: holds a worker, any worker with a model, or memory of a GPU; `renew` moves its end.

use super::{ps, stop};
use crate::args::{FitKind, Global, Match, Output, Renew, Reserve};
use crate::failure::Failure;
use crate::show::{json, reservations};
use crate::{connect, naming, terminal};
use common::WorkerId;
use proto::claim::What;
use tonic::{Code, Response, Status};

/// Holds it and prints what is held; nothing that fits is exit code 3.
pub async fn run(global: &Global, args: &Reserve) -> Result<(), Failure> {
    let request = proto::ReserveRequest {
        claims: claims(global, args).await?,
        ttl: args.ttl.map(common::duration),
        key: args.key.clone().unwrap_or_default(),
        holder: args.holder.clone().unwrap_or_else(stop::user),
    };
    let client = connect::scheduler(global).await?;
    let asking = connect::asked_again(global.timeout, || {
        let (mut client, request) = (client.clone(), request.clone());
        async move { client.reserve(request).await }
    });
    let answer = ask(global, "reserve", asking).await?;
    if answer.existing && !global.quiet {
        terminal::say("this key was answered before: nothing more is held");
    }
    print(global, "ReserveResponse", &answer, answer.reservation.as_slice())
}

/// Moves its end.
pub async fn renew(global: &Global, args: &Renew) -> Result<(), Failure> {
    let request = proto::RenewRequest { id: args.id.clone(), ttl: args.ttl.map(common::duration) };
    let client = connect::scheduler(global).await?;
    let asking = connect::asked_again(global.timeout, || {
        let (mut client, request) = (client.clone(), request.clone());
        async move { client.renew(request).await }
    });
    let answer = ask(global, &format!("renew {}", args.id), asking).await?;
    print(global, "RenewResponse", &answer, answer.reservation.as_slice())
}

/// Prints an answer that is one reservation or several: `whole` is the message they came in.
pub fn print<M: prost::Message>(
    global: &Global,
    name: &str,
    whole: &M,
    reservations: &[proto::Reservation],
) -> Result<(), Failure> {
    match global.output {
        Output::Json => json::print(name, whole),
        Output::Jsonl => reservations.iter().try_for_each(|one| json::print_line("Reservation", one)),
        Output::Name => reservations.iter().try_for_each(|one| terminal::put_line(&one.id)),
        Output::Table | Output::Wide => terminal::put(reservations::table(global, reservations)),
    }
}

/// Nothing that fits, now, is an answer of its own.
async fn ask<T>(
    global: &Global,
    what: &str,
    asking: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Failure> {
    let mut nothing = false;
    let asking = async {
        let answer = asking.await;
        nothing = answer.as_ref().is_err_and(|status| {
            matches!(status.code(), Code::ResourceExhausted | Code::FailedPrecondition | Code::NotFound)
        });
        answer
    };
    match connect::deed(global.timeout, what, "`rbee reservations` tells what is held", asking).await {
        Err(Failure::Failed(words)) if nothing => Err(Failure::Nothing(words)),
        other => other,
    }
}

async fn claims(global: &Global, args: &Reserve) -> Result<Vec<proto::Claim>, Failure> {
    let claim = |what| proto::Claim { what: Some(what) };
    if let Some(bytes) = args.vram {
        if args.selection.group.is_some() {
            let words = "--group says nothing about GPUs: narrow --vram down with --hive, -l or --gpu";
            return Err(Failure::Usage(words.to_owned()));
        }
        let fit = match args.fit {
            FitKind::Best => proto::Fit::Best,
            FitKind::First => proto::Fit::First,
            FitKind::MostFree => proto::Fit::MostFree,
        };
        let wanted = proto::VramClaim {
            bytes,
            headroom_bytes: args.headroom,
            filter: Some(args.selection.filter(None)),
            gpu_uuid: args.gpu.clone().unwrap_or_default(),
            fit: fit.into(),
        };
        return Ok(vec![claim(What::Vram(wanted)); args.count as usize]);
    }
    if let Some(model) = &args.model {
        let how = match args.how {
            Match::Exact => proto::ModelMatch::Exact,
            Match::IgnoreCase => proto::ModelMatch::IgnoreCase,
            Match::Glob => proto::ModelMatch::Glob,
        };
        let wanted = proto::WorkerClaim {
            filter: Some(args.selection.filter(None)),
            model: model.clone(),
            r#match: how.into(),
            idle: args.idle,
            max_age: None,
        };
        return Ok(vec![claim(What::AnyWorker(wanted)); args.count as usize]);
    }
    let whole = |wish: &String| matches!(WorkerId::parse(wish), Ok((Some(_), _)));
    if args.worker.iter().all(whole) {
        return Ok(args.worker.iter().map(|name| claim(What::Worker(name.clone()))).collect());
    }
    let workers = ps::list(global, Some(args.selection.filter(None))).await?.workers;
    let named = |wish: &String| Ok(claim(What::Worker(naming::full(naming::unique(wish, &workers)?))));
    args.worker.iter().map(named).collect()
}
