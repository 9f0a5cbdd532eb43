//! The classic text format out of OpenMetrics: counters are called by their full name, there are no units, and no end
//! mark.

/// What an Accept header says that wants OpenMetrics.
pub const OPEN_KIND: &str = "application/openmetrics-text";
/// Content type of OpenMetrics.
pub const OPEN: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Content type of the classic text.
pub const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Rewrites a whole page. HELP comes before TYPE in OpenMetrics, and its name depends on the type.
pub fn classic(open: &str) -> String {
    let mut out = String::with_capacity(open.len());
    let mut help: Option<&str> = None;
    for line in open.lines() {
        let Some(comment) = line.strip_prefix("# ") else {
            out.push_str(line);
            out.push('\n');
            continue;
        };
        let (word, rest) = comment.split_once(' ').unwrap_or((comment, ""));
        match word {
            "HELP" => help = Some(rest),
            "TYPE" => {
                let (name, kind) = rest.split_once(' ').unwrap_or((rest, "unknown"));
                let (suffix, kind) = match kind {
                    "counter" => ("_total", "counter"),
                    "info" => ("_info", "gauge"),
                    "unknown" => ("", "untyped"),
                    other => ("", other),
                };
                if let Some((_, words)) = help.take().and_then(|help| help.split_once(' ')) {
                    // OpenMetrics escapes quotes in help, which the classic text does not know.
                    out.push_str(&format!("# HELP {name}{suffix} {}\n", words.replace("\\\"", "\"")));
                }
                out.push_str(&format!("# TYPE {name}{suffix} {kind}\n"));
            }
            // UNIT and EOF.
            _ => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_called_by_their_full_name() {
        let open = "# HELP a_frames Frames.\n# TYPE a_frames counter\n# UNIT a_frames seconds\na_frames_total{k=\"v\"} 1\n\
                    # HELP b B.\n# TYPE b gauge\nb 2\n# HELP c C.\n# TYPE c info\nc_info{v=\"1\"} 1\n# TYPE d unknown\nd 1\n# EOF\n";
        let wanted = "# HELP a_frames_total Frames.\n# TYPE a_frames_total counter\na_frames_total{k=\"v\"} 1\n\
                      # HELP b B.\n# TYPE b gauge\nb 2\n# HELP c_info C.\n# TYPE c_info gauge\nc_info{v=\"1\"} 1\n\
                      # TYPE d untyped\nd 1\n";
        assert_eq!(classic(open), wanted);
    }
}
