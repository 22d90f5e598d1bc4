//! Reads a configuration file, lays `KEY=VALUE` arguments over it, and says what is wrong where.

use super::error::Place;
use super::{Config, ConfigError, check};
use crate::without_credentials;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// Keys whose values are paths: relative ones count from the place that they stand in.
const PATHS: [&str; 10] = [
    "run.dir",
    "model.init",
    "model.init_vgg",
    "model.init_res2net",
    "model.init_cls",
    "data.train",
    "data.eval",
    "data.cache_dir",
    "data.root",
    "data.labels",
];

/// Reads `file`, applies `overrides` (`KEY=VALUE`, where VALUE is TOML if it parses, else a string),
/// and returns the validated configuration with its paths resolved.
pub fn load(file: &Path, overrides: &[String]) -> Result<Config, ConfigError> {
    let text = std::fs::read_to_string(file).map_err(|source| ConfigError::Read { file: file.into(), source })?;
    let mut config = parse(&text, file, overrides)?;
    if config.run.dir.as_os_str().is_empty() {
        config.run.dir = Path::new("runs").join(file.file_stem().unwrap_or_default());
    }
    super::stages::resolve_beside(&mut config);
    Ok(config)
}

/// As [`load`], from the file's text.
pub fn parse(text: &str, file: &Path, overrides: &[String]) -> Result<Config, ConfigError> {
    let mut table: Table = toml::from_str(text).map_err(|e| syntax_error(text, file, &e))?;
    let sources = Sources { text, file, overrides };
    for argument in overrides {
        lay_over(&mut table, argument)?;
    }
    refuse_unknown(&table, &sources)?;
    resolve_paths(&mut table, &sources);
    let config: Config = deserialize(table, &sources)?;
    match check::first_problem(&config) {
        None => Ok(config),
        Some((key, problem)) => Err(ConfigError::Value { place: sources.place(key), key: key.into(), problem }),
    }
}

/// Where `key` stands.
pub(super) fn place_of(key: &str, text: &str, file: &Path, overrides: &[String]) -> Place {
    Sources { text, file, overrides }.place(key)
}

/// Where values come from, to tell the user where one stands.
struct Sources<'a> {
    text: &'a str,
    file: &'a Path,
    overrides: &'a [String],
}

impl Sources<'_> {
    fn place(&self, key: &str) -> Place {
        let argument = self.overrides.iter().rev().find(|a| {
            a.split_once('=').is_some_and(|(k, _)| {
                let k = k.trim();
                k == key || key.strip_prefix(k).is_some_and(|rest| rest.starts_with('.'))
            })
        });
        match argument {
            Some(a) => Place::CommandLine(a.clone()),
            None => Place::File(self.file.into(), self.line(key)),
        }
    }

    /// Line of `key` in the file, or that of its nearest ancestor; 0 where neither is there.
    fn line(&self, key: &str) -> usize {
        let Ok(document) = toml::de::DeTable::parse(self.text) else { return 0 };
        let mut table = document.get_ref();
        let mut offset = None;
        for part in key.split('.') {
            let Some((name, value)) = table.iter().find(|(name, _)| name.get_ref().as_ref() == part) else { break };
            offset = Some(name.span().start);
            match value.get_ref() {
                toml::de::DeValue::Table(inner) => table = inner,
                _ => break,
            }
        }
        offset.map_or(0, |o| line_of(self.text, o))
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|b| *b == b'\n').count() + 1
}

fn syntax_error(text: &str, file: &Path, e: &toml::de::Error) -> ConfigError {
    let line = e.span().map_or(1, |span| line_of(text, span.start));
    ConfigError::Syntax { file: file.into(), line, message: e.message().trim().replace('\n', ", ") }
}

fn lay_over(table: &mut Table, argument: &str) -> Result<(), ConfigError> {
    let wrong = || ConfigError::Argument { argument: argument.into() };
    let (key, value) = argument.split_once('=').ok_or_else(wrong)?;
    let parts: Vec<&str> = key.trim().split('.').collect();
    let (last, parents) = parts.split_last().ok_or_else(wrong)?;
    if parts.iter().any(|p| p.is_empty()) {
        return Err(wrong());
    }
    let mut here = table;
    for part in parents {
        let child = here.entry(*part).or_insert_with(|| Value::Table(Table::new()));
        if !child.is_table() {
            *child = Value::Table(Table::new());
        }
        here = child.as_table_mut().ok_or_else(wrong)?;
    }
    here.insert((*last).into(), toml_or_string(value.trim()));
    Ok(())
}

fn toml_or_string(value: &str) -> Value {
    let parsed = toml::from_str::<Table>(&format!("v = {value}")).ok().and_then(|mut t| t.remove("v"));
    parsed.unwrap_or_else(|| Value::String(value.into()))
}

fn refuse_unknown(table: &Table, sources: &Sources<'_>) -> Result<(), ConfigError> {
    let schema = Config::json_schema();
    let known = Known { definitions: &schema["$defs"] };
    let mut all = Vec::new();
    known.list(&schema, "", &mut all);
    match known.first_unknown(&schema, table, "") {
        None => Ok(()),
        Some(key) => {
            let nearest = nearest(&key, &all);
            Err(ConfigError::Unknown { place: sources.place(&key), key, nearest })
        }
    }
}

/// The keys that exist, read off the JSON schema so that there is one list of them.
struct Known<'a> {
    definitions: &'a Json,
}

impl<'a> Known<'a> {
    /// `properties` of a schema: its own, those of what it refers to, or those of one of its alternatives.
    fn properties(&self, schema: &'a Json) -> Option<&'a serde_json::Map<String, Json>> {
        if let Some(p) = schema["properties"].as_object() {
            return Some(p);
        }
        if let Some(name) = schema["$ref"].as_str().and_then(|r| r.strip_prefix("#/$defs/")) {
            return self.properties(&self.definitions[name]);
        }
        schema["anyOf"].as_array()?.iter().find_map(|s| self.properties(s))
    }

    fn first_unknown(&self, schema: &'a Json, table: &Table, prefix: &str) -> Option<String> {
        if schema["additionalProperties"].is_object() {
            // Names of the user's own.
            return None;
        }
        let properties = self.properties(schema)?;
        table.iter().find_map(|(name, value)| {
            let key = format!("{prefix}{name}");
            match (properties.get(name), value) {
                (None, _) => Some(key),
                (Some(inner), Value::Table(t)) => self.first_unknown(inner, t, &format!("{key}.")),
                _ => None,
            }
        })
    }

    fn list(&self, schema: &'a Json, prefix: &str, out: &mut Vec<String>) {
        for (name, inner) in self.properties(schema).into_iter().flatten() {
            out.push(format!("{prefix}{name}"));
            self.list(inner, &format!("{prefix}{name}."), out);
        }
    }
}

/// The key most like `wrong`: the same name elsewhere, or few letters apart.
fn nearest(wrong: &str, all: &[String]) -> Option<String> {
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let score = |key: &String| {
        let whole = strsim::damerau_levenshtein(wrong, key);
        let name = strsim::damerau_levenshtein(&last(wrong), &last(key)) + 1;
        whole.min(name)
    };
    all.iter().min_by_key(|key| score(key)).filter(|key| score(key) <= 1 + wrong.len() / 4).cloned()
}

fn resolve_paths(table: &mut Table, sources: &Sources<'_>) {
    for key in PATHS {
        let Some((section, name)) = key.split_once('.') else { continue };
        let Some(Value::String(path)) = table.get_mut(section).and_then(|s| s.get_mut(name)) else { continue };
        if path.is_empty() || path.starts_with(super::stages::BESIDE) || super::is_url(Path::new(&*path)) {
            continue;
        }
        let resolved: PathBuf = sources.place(key).folder().join(&*path);
        *path = resolved.to_string_lossy().into_owned();
    }
    let folder = sources.place("train.stages").folder().to_owned();
    let stages = table.get_mut("train").and_then(|t| t.get_mut("stages")).and_then(Value::as_array_mut);
    for stage in stages.into_iter().flatten() {
        if let Value::String(path) = stage {
            *path = folder.join(&*path).to_string_lossy().into_owned();
        }
    }
}

fn deserialize<T: DeserializeOwned>(table: Table, sources: &Sources<'_>) -> Result<T, ConfigError> {
    serde_path_to_error::deserialize(Value::Table(table)).map_err(|e| {
        let key = e.path().to_string();
        let problem = describe(&key, e.into_inner().message());
        ConfigError::Value { place: sources.place(&key), key, problem }
    })
}

/// serde says of an untagged enum only that nothing fits; say what would.
fn describe(key: &str, message: &str) -> String {
    let hint = match key {
        "train.global_batch" => "expected a whole number or \"auto\"",
        "data.size" => "expected a whole number or [height, width]",
        "data.augment" => {
            "expected true, false or a table of crop, flip_vertical, flip_horizontal, brightness, contrast, scale, rotation, \
             noise (numbers)"
        }
        "data.cache_limit" => "expected a number of bytes, or a text as in \"200GB\"",
        _ => return without_credentials(message).trim().replace('\n', ", "),
    };
    hint.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Augment, GlobalBatch, Size};

    const GOOD: &str = "[data]\ntrain = 'a.txt'\n";

    fn error(text: &str, overrides: &[&str]) -> String {
        let overrides: Vec<String> = overrides.iter().map(|s| s.to_string()).collect();
        parse(text, Path::new("conf/x.toml"), &overrides).unwrap_err().to_string()
    }

    #[test]
    fn a_misspelt_key_is_named_with_its_line_and_the_nearest_name() {
        let e = error("[data]\ntrain = 'a'\n\n[train]\nepocs = 3\n", &[]);
        assert_eq!(e, "conf/x.toml:5: unknown key 'train.epocs'; did you mean 'train.epochs'?");
        let e = error(GOOD, &["optim.learning=3"]);
        assert_eq!(e, "argument 'optim.learning=3': unknown key 'optim.learning'");
        let e = error("[train]\nlr = 1\n", &[]);
        assert_eq!(e, "conf/x.toml:2: unknown key 'train.lr'; did you mean 'optim.lr'?");
        assert!(error("[data.augment]\ncrap = 1\n", &[]).contains("did you mean 'data.augment.crop'?"));
    }

    #[test]
    fn a_wrong_type_is_named_with_its_line() {
        let e = error("[train]\nepochs = 'many'\n", &[]);
        assert!(e.starts_with("conf/x.toml:2: train.epochs: invalid type: string \"many\""), "{e}");
        let e = error("[train]\nepochs = -1\n", &[]);
        assert!(e.starts_with("conf/x.toml:2: train.epochs: invalid value"), "{e}");
        assert!(error(GOOD, &["data.size=big"]).contains("expected a whole number or [height, width]"));
        assert!(error(GOOD, &["run.device=tpu"]).contains("unknown variant `tpu`"));
    }

    #[test]
    fn values_out_of_range_and_bad_syntax_are_named() {
        assert_eq!(
            error("[data]\ntrain='a'\n[loss]\nbce = 0\ndice = 0.0\n", &[]),
            "conf/x.toml:4: loss.bce: and loss.dice are both 0: nothing to learn"
        );
        assert!(error("", &[]).contains("data.train: is not given"));
        assert!(error("[data\n", &[]).starts_with("conf/x.toml:1: not valid TOML"));
        assert_eq!(
            error(GOOD, &["train.epochs"]),
            "argument 'train.epochs' is not of the form KEY=VALUE (as in train.epochs=3)"
        );
    }

    #[test]
    fn half_precision_on_the_cpu_is_refused_but_for_the_stand_in_of_tests() {
        let e = error(GOOD, &["train.precision=fp16", "run.device=cpu"]);
        assert!(
            e.starts_with("argument 'train.precision=fp16': train.precision: fp16 (GPU) works on GPUs only"),
            "{e}"
        );
        assert!(e.contains("train.precision=bf16, or run.device=cuda"), "{e}");
        for others in [&["run.device=cpu", "comm.backend=nccl"][..], &["run.device=cuda"], &[]] {
            let overrides = others.iter().chain(&["train.precision=fp16"]).map(|s| s.to_string()).collect::<Vec<_>>();
            assert!(parse(GOOD, Path::new("conf/x.toml"), &overrides).is_ok(), "{others:?}");
        }
    }

    #[test]
    fn the_command_line_wins_and_paths_count_from_where_they_stand() {
        let overrides = ["data.eval=b.txt", "train.global_batch=auto", "data.size=[64, 96]", "data.augment.crop=0.1"];
        let c = parse(GOOD, Path::new("conf/x.toml"), &overrides.map(String::from)).unwrap();
        assert_eq!(c.data.train, Path::new("conf/a.txt"));
        assert_eq!(c.data.eval, Path::new("b.txt"));
        assert!(matches!(c.train.global_batch, GlobalBatch::Auto(_)));
        assert_eq!(c.data.size, Size::Rectangle([64, 96]));
        assert!(matches!(c.data.augment, Augment::Table(t) if t.crop == 0.1));
    }

    #[test]
    fn urls_stay_as_they_are() {
        let overrides = ["data.train=s3://bucket/covid", "data.cache_dir=cache", "data.cache_limit=200GB"];
        let c =
            parse("data.eval = 'https://h/a/../b'\n", Path::new("conf/x.toml"), &overrides.map(String::from)).unwrap();
        assert_eq!(
            (c.data.train.to_str(), c.data.eval.to_str()),
            (Some("s3://bucket/covid"), Some("https://h/a/../b"))
        );
        assert_eq!(c.data.cache_dir.as_deref(), Some(Path::new("cache")));
        assert_eq!(c.data.cache_limit.and_then(|limit| limit.number()), Some(200_000_000_000));
        let limit = |text: &str| error(GOOD, &[&format!("data.cache_limit={text}")]);
        let secret = error(GOOD, &["data.trains=http://me:secret@h"]) + &error(GOOD, &["http://me:secret@h"]);
        assert!(!secret.contains("secret") && secret.contains("data.trains=http://***@h"), "{secret}");
        for text in ["many", "1.5TB", "'5 apples'", "-3", "99999999TB", "0"] {
            assert!(limit(text).contains("data.cache_limit: "), "{text}: {}", limit(text));
        }
    }

    #[test]
    fn the_run_directory_is_named_after_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("mine.toml");
        std::fs::write(&file, GOOD).unwrap();
        assert_eq!(load(&file, &[]).unwrap().run.dir, Path::new("runs/mine"));
    }

    #[test]
    fn the_resolved_configuration_reads_back_equal() {
        let c = parse(GOOD, Path::new("x.toml"), &["train.max_steps=3".into()]).unwrap();
        let again = parse(&toml::to_string(&c).unwrap(), Path::new("x.toml"), &[]).unwrap();
        assert_eq!(c, again);
    }

    #[test]
    fn the_committed_schema_is_current() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/schema.json");
        let now = serde_json::to_string_pretty(&Config::json_schema()).unwrap() + "\n";
        if std::env::var_os("UPDATE_SCHEMA").is_some() {
            std::fs::write(&file, &now).unwrap();
        }
        let committed = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(committed == now, "configs/schema.json is out of date: run UPDATE_SCHEMA=1 cargo test -p protocol");
    }
}
