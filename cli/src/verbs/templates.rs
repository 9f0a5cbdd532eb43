//! `rbee templates`: what can be started by name, and where.

use crate::args::{Global, Output, Templates};
use crate::failure::Failure;
use crate::reach::{self, ReachedHive};
use crate::show::json::{self, Layout};
use crate::show::table::{Cell, Column, Tint, layout};
use crate::{connect, locate, terminal};
use tokio::task::JoinSet;

/// So many hives are asked at once.
const AT_ONCE: usize = 32;

const COLUMNS: [Column; 4] = [
    Column::text("TEMPLATE", 0),
    Column::text("HIVE", 0),
    Column::text("PARAMETERS", 0),
    Column::text("DESCRIPTION", 1),
];

/// The templates of one hive.
#[derive(Debug)]
pub struct Listed {
    /// Whose.
    pub hive: String,
    /// In the order of their names.
    pub templates: Vec<proto::Template>,
}

/// The templates of all hives.
#[derive(Debug, Default)]
pub struct Everywhere {
    /// Those that answered, by name.
    pub hives: Vec<Listed>,
    /// Those that did not, and why.
    pub silent: Vec<(String, String)>,
}

impl Everywhere {
    /// Who did not answer, to be put behind a sentence.
    pub fn unheard(&self) -> String {
        let names: Vec<&str> = self.silent.iter().map(|(hive, _)| hive.as_str()).take(5).collect();
        if names.is_empty() { String::new() } else { format!(" (not heard: {})", names.join(", ")) }
    }
}

/// Lists them.
pub async fn run(global: &Global, args: &Templates) -> Result<(), Failure> {
    let listed = match &args.hive {
        Some(hive) => {
            let one = ask(global, reach::hive(global, Some(hive)).await?).await?;
            Everywhere { hives: vec![one], silent: Vec::new() }
        }
        None => everywhere(global).await?,
    };
    for (hive, why) in &listed.silent {
        terminal::say(format_args!("rbee: {hive}: {why}"));
    }
    print(global, &listed)?;
    match (listed.silent.len(), listed.hives.len()) {
        (0, _) => Ok(()),
        (silent, heard) => Err(Failure::Partly(format!("{silent} of {} hives did not answer", silent + heard))),
    }
}

/// Asks every hive that starts from templates.
///
/// # Errors
/// When the queen cannot be asked which those are.
pub async fn everywhere(global: &Global) -> Result<Everywhere, Failure> {
    let mut hives = reach::heard(global).await?.into_iter().filter(|hive| hive.remote_start).map(|hive| hive.id);
    let (mut asking, mut all) = (JoinSet::new(), Everywhere::default());
    loop {
        for id in hives.by_ref().take(AT_ONCE.saturating_sub(asking.len())) {
            let global = global.clone();
            asking.spawn(async move {
                let listed = match reach::known(&global, &id).await {
                    Ok(hive) => ask(&global, hive).await,
                    Err(failure) => Err(failure),
                };
                (id, listed)
            });
        }
        match asking.join_next().await {
            Some(Ok((_, Ok(listed)))) => all.hives.push(listed),
            Some(Ok((hive, Err(failure)))) => all.silent.push((hive, failure.to_string())),
            Some(Err(error)) => return Err(Failure::failed("a part of it broke down", &error)),
            None => break,
        }
    }
    all.hives.sort_by(|a, b| a.hive.cmp(&b.hive));
    all.silent.sort();
    Ok(all)
}

async fn ask(global: &Global, mut hive: ReachedHive) -> Result<Listed, Failure> {
    let request = proto::ListTemplatesRequest { hive: hive.id.clone() };
    let what = format!("list the templates of {}", hive.id);
    let answer = connect::answer(global.timeout, &what, hive.client.list_templates(request)).await;
    let answer = answer.map_err(locate::not_the_queen)?;
    Ok(Listed { hive: hive.id, templates: answer.templates })
}

fn print(global: &Global, listed: &Everywhere) -> Result<(), Failure> {
    let all = listed.hives.iter().flat_map(|listed| listed.templates.iter().map(|template| (&listed.hive, template)));
    match global.output {
        Output::Json => {
            let entries = all.map(entry).collect::<Result<Vec<_>, Failure>>()?;
            terminal::put(format!("{:#}\n", serde_json::json!({ "templates": entries })))
        }
        Output::Jsonl => all.map(entry).try_for_each(|entry| terminal::put(format!("{}\n", entry?))),
        Output::Name => all.map(|(_, template)| &template.name).try_for_each(|name| terminal::put_line(name)),
        Output::Table | Output::Wide => {
            let rows: Vec<Vec<Cell>> = all.map(|(hive, template)| row(hive, template)).collect();
            let width = if global.output == Output::Wide { None } else { terminal::width() };
            terminal::put(layout(&COLUMNS, &rows, width, terminal::colourful(global.color)))?;
            if rows.is_empty() && !global.quiet {
                terminal::say("no templates; `rbee hive --template-dir DIR` has those in DIR");
            }
            Ok(())
        }
    }
}

/// The template in canonical JSON, and whose it is.
fn entry((hive, template): (&String, &proto::Template)) -> Result<serde_json::Value, Failure> {
    let text = json::text("Template", template, Layout::Line)?;
    let mut value: serde_json::Value =
        serde_json::from_str(&text).map_err(|error| Failure::failed("failed to write a template as JSON", &error))?;
    value["hive"] = serde_json::Value::String(hive.clone());
    Ok(value)
}

fn row(hive: &str, template: &proto::Template) -> Vec<Cell> {
    let parameters: Vec<String> = template.parameters.iter().map(parameter).collect();
    let told = match template.error.as_str() {
        "" => Cell::known(Some(template.description.clone())),
        error => Cell::tinted(format!("cannot be started: {error}"), Tint::Red),
    };
    vec![Cell::plain(&template.name), Cell::plain(hive), Cell::known(Some(parameters.join(" "))), told]
}

/// "port=8000..8999", "[model=a|b]": in brackets when it may be left out.
fn parameter(parameter: &proto::TemplateParameter) -> String {
    let number = |number: Option<i64>| number.map(|number| number.to_string()).unwrap_or_default();
    let values = match parameter.r#type() {
        proto::ParameterType::Integer => format!("{}..{}", number(parameter.minimum), number(parameter.maximum)),
        proto::ParameterType::Choice => parameter.choices.join("|"),
        proto::ParameterType::Name => "NAME".to_owned(),
        proto::ParameterType::Size => "SIZE".to_owned(),
        proto::ParameterType::Unspecified => "?".to_owned(),
    };
    let text = format!("{}={values}", parameter.name);
    if parameter.default.is_some() { format!("[{text}]") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_says_what_it_takes_and_whether_it_may_be_left_out() {
        let port = proto::TemplateParameter {
            name: "port".into(),
            r#type: proto::ParameterType::Integer.into(),
            minimum: Some(1),
            maximum: Some(9),
            ..Default::default()
        };
        assert_eq!(parameter(&port), "port=1..9");
        let model = proto::TemplateParameter {
            name: "model".into(),
            r#type: proto::ParameterType::Choice.into(),
            choices: vec!["a".into(), "b".into()],
            default: Some("a".into()),
            ..Default::default()
        };
        assert_eq!(parameter(&model), "[model=a|b]");
    }
}
