//! What schedulers may ask, checked: requests of the finds and of `Explain` become questions for `placement`.

use super::fleet::{filter_hive, page_size};
use super::invalid;
use crate::Config;
use crate::placement::{CapacityQuery, Cursor, GpuCursor, ModelRule, Query, Question, VerdictCursor, Want};
use proto::explain_request::Question as Asked;
use proto::{
    ExplainRequest, FindCapacityRequest, FindIdleWorkersRequest, FindOptions, FindOrder,
    FindWorkersWithCapacityRequest, FindWorkersWithModelRequest, Fit, IdleBasis, ModelMatch,
};
use std::time::Duration;
use tonic::Status;

/// A request of `Explain`, checked.
pub struct Explaining {
    /// What is explained.
    pub question: Question,
    /// At most so many verdicts.
    pub size: usize,
    /// Where the page before ended.
    pub after: Option<VerdictCursor>,
}

/// `FindIdleWorkers`.
pub fn idle(config: &Config, request: FindIdleWorkersRequest) -> Result<Query, Status> {
    let want = match IdleBasis::try_from(request.basis) {
        Ok(IdleBasis::Unspecified | IdleBasis::Auto) => Want::Idle,
        Ok(IdleBasis::Gpu) => Want::UnusedGpu,
        Err(_) => return Err(invalid::field("basis", format!("{} is not an IdleBasis", request.basis))),
    };
    workers(config, request.options, want)
}

/// `FindWorkersWithModel`.
pub fn with_model(config: &Config, request: FindWorkersWithModelRequest) -> Result<Query, Status> {
    if request.model.is_empty() {
        return Err(invalid::field("model", "name a model, or use match GLOB with *"));
    }
    let rule = match ModelMatch::try_from(request.r#match) {
        Ok(ModelMatch::Unspecified | ModelMatch::Exact) => ModelRule::Exact,
        Ok(ModelMatch::IgnoreCase) => ModelRule::IgnoreCase,
        Ok(ModelMatch::Glob) => ModelRule::Glob,
        Err(_) => return Err(invalid::field("match", format!("{} is not a ModelMatch", request.r#match))),
    };
    workers(config, request.options, Want::Model { name: request.model, rule, idle: request.idle })
}

/// `FindWorkersWithCapacity`.
pub fn with_capacity(config: &Config, request: FindWorkersWithCapacityRequest) -> Result<Query, Status> {
    let (required, headroom) = (request.required_vram_bytes, request.headroom_bytes);
    workers(config, request.options, Want::Capacity { required, headroom, idle: request.idle })
}

/// `FindCapacity`.
pub fn capacity(config: &Config, request: FindCapacityRequest) -> Result<CapacityQuery, Status> {
    let options = request.options.unwrap_or_default();
    let (max_age, stale_too) = ages(config, &options)?;
    let fit = Fit::try_from(request.fit).map_err(|_| invalid::field("fit", format!("{} is not a Fit", request.fit)))?;
    let after = match options.page_token.as_str() {
        "" => None,
        token => Some(GpuCursor::parse(token).ok_or_else(|| strange_token("options.page_token"))?),
    };
    let (limit, page_size) = (options.limit as usize, pages(&options)?);
    let filter = options.filter.unwrap_or_default();
    filter_hive(&filter)?;
    let (required, headroom) = (request.required_vram_bytes, request.headroom_bytes);
    Ok(CapacityQuery { filter, max_age, stale_too, required, headroom, fit, limit, page_size, after })
}

/// `Explain`.
pub fn explaining(config: &Config, request: ExplainRequest) -> Result<Explaining, Status> {
    let question = match request.question {
        Some(Asked::IdleWorkers(asked)) => Question::Workers(idle(config, asked)?),
        Some(Asked::WorkersWithModel(asked)) => Question::Workers(with_model(config, asked)?),
        Some(Asked::WorkersWithCapacity(asked)) => Question::Workers(with_capacity(config, asked)?),
        Some(Asked::Capacity(asked)) => Question::Gpus(capacity(config, asked)?),
        None => return Err(invalid::field("question", "ask one: idle workers, a model, room, or capacity")),
    };
    let size = page_size(request.page_size)?;
    let after = match request.page_token.as_str() {
        "" => None,
        token => Some(VerdictCursor::parse(&question, token).ok_or_else(|| strange_token("page_token"))?),
    };
    Ok(Explaining { question, size, after })
}

fn workers(config: &Config, options: Option<FindOptions>, want: Want) -> Result<Query, Status> {
    let options = options.unwrap_or_default();
    let (max_age, stale_too) = ages(config, &options)?;
    let order = FindOrder::try_from(options.order)
        .map_err(|_| invalid::field("options.order", format!("{} is not a FindOrder", options.order)))?;
    let after = match options.page_token.as_str() {
        "" => None,
        token => Some(Cursor::parse(token).ok_or_else(|| strange_token("options.page_token"))?),
    };
    let page_size = pages(&options)?;
    let filter = options.filter.unwrap_or_default();
    filter_hive(&filter)?;
    Ok(Query {
        filter,
        max_age,
        stale_too,
        held_too: options.held_too,
        min_idle: invalid::length("options.min_idle", options.min_idle.as_ref())?,
        limit: options.limit as usize,
        order,
        page_size,
        after,
        want,
    })
}

/// How old a sample may be, and whether that reaches into what is in doubt.
fn ages(config: &Config, options: &FindOptions) -> Result<(Duration, bool), Status> {
    let asked = invalid::length("options.max_age", options.max_age.as_ref())?;
    Ok((asked.unwrap_or(config.max_age), asked.is_some_and(|asked| asked > config.stale)))
}

/// 0 asks for all in one answer.
fn pages(options: &FindOptions) -> Result<usize, Status> {
    if options.page_size == 0 { Ok(0) } else { page_size(options.page_size) }
}

fn strange_token(field: &str) -> Status {
    invalid::field(field, "is not one that this question was answered with: leave it out to begin again")
}
