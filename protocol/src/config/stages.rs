//! Pipelines: configurations that are trained one after the other.

use super::{Config, ConfigError, Model, Resume, Run, load};
use crate::config::error::Place;
use std::path::{Path, PathBuf};

/// A stage of a pipeline.
#[derive(Clone, Debug, PartialEq)]
pub struct Stage {
    /// Its name: that of its file, without `.toml`.
    pub name: String,
    /// Its file.
    pub file: PathBuf,
    /// Its configuration, with a run directory within the pipeline's.
    pub config: Config,
}

/// What a value of `model.init*` begins with where it names a run beside this one: in a pipeline, an earlier stage.
pub(super) const BESIDE: char = '@';

/// Replaces `@NAME` by the run NAME beside the configuration's own.
pub(super) fn resolve_beside(config: &mut Config) {
    let runs = config.run.dir.parent().unwrap_or(Path::new("")).to_owned();
    for init in inits(&mut config.model) {
        if let Some(name) = init.to_str().and_then(|text| text.strip_prefix(BESIDE)) {
            *init = runs.join(name);
        }
    }
}

fn inits(model: &mut Model) -> impl Iterator<Item = &mut PathBuf> {
    [&mut model.init, &mut model.init_vgg, &mut model.init_res2net, &mut model.init_cls].into_iter().flatten()
}

impl Config {
    /// The stages of this configuration, loaded from `file` and `overrides`; none where it is no pipeline.
    pub fn stages(&self, file: &Path, overrides: &[String]) -> Result<Vec<Stage>, ConfigError> {
        let wrong = |problem: String| ConfigError::Value {
            place: Place::File(file.into(), 0),
            key: "train.stages".into(),
            problem,
        };
        if self.train.stages.is_empty() {
            return Ok(Vec::new());
        }
        let own = |argument: &&String| argument.starts_with("run.") || argument.starts_with("train.stages");
        let passed: Vec<String> = overrides.iter().filter(|a| !own(a)).cloned().collect();
        refuse_other_keys(file).map_err(&wrong)?;
        let mut stages: Vec<Stage> = Vec::new();
        for stage in &self.train.stages {
            let name = stage.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            if stages.iter().any(|earlier| earlier.name == name) {
                return Err(wrong(format!("two stages are called '{name}'")));
            }
            let dir = self.run.dir.join(&name);
            let dir_setting = format!("run.dir={}", toml::Value::String(dir.to_string_lossy().into_owned()));
            let settings: Vec<String> = passed.iter().cloned().chain([dir_setting]).collect();
            let mut config = load(stage, &settings)?;
            if !config.train.stages.is_empty() {
                return Err(wrong(format!("{} is a pipeline itself", stage.display())));
            }
            // Only the first stage has to be there, or not to be there, at the start.
            let resume = if stages.is_empty() { self.run.resume } else { Resume::Auto };
            config.run = Run { dir, resume, ..self.run.clone() };
            if let Some(upload) = &mut config.checkpoint.upload {
                *upload = format!("{}/{name}", upload.trim_end_matches('/'));
            }
            check_beside(&mut config, &self.run.dir, &stages).map_err(&wrong)?;
            stages.push(Stage { name, file: stage.clone(), config });
        }
        Ok(stages)
    }
}

/// A pipeline's file holds nothing that no stage would see.
fn refuse_other_keys(file: &Path) -> Result<(), String> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let table: toml::Table = toml::from_str(&text).unwrap_or_default();
    let mut in_train = table.get("train").and_then(toml::Value::as_table).into_iter().flat_map(toml::Table::keys);
    let other = table.keys().find(|key| !matches!(key.as_str(), "run" | "train"));
    match other.cloned().or_else(|| in_train.find(|key| *key != "stages").map(|key| format!("train.{key}"))) {
        None => Ok(()),
        Some(key) => Err(format!("a pipeline has only [run] beside it, but there is '{key}': set it in the stages")),
    }
}

/// Whether the runs that it starts from will be there when its turn comes.
fn check_beside(config: &mut Config, run: &Path, earlier: &[Stage]) -> Result<(), String> {
    let width = config.model.width;
    for init in inits(&mut config.model).filter(|init| init.parent() == Some(run) && !init.is_file()) {
        let Some(stage) = earlier.iter().find(|stage| stage.config.run.dir == *init) else {
            return Err(format!("{} is the run of no earlier stage", init.display()));
        };
        let theirs = stage.config.model.width;
        if theirs != width {
            return Err(format!(
                "stage '{}' has model.width {theirs}, a stage that starts from it {width}",
                stage.name
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pipeline(files: &[(&str, &str)], overrides: &[&str]) -> Result<Vec<Stage>, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let file = folder.path().join("all.toml");
        let overrides: Vec<String> = overrides.iter().map(|o| (*o).to_owned()).collect();
        load(&file, &overrides)?.stages(&file, &overrides)
    }

    const CLS: (&str, &str) = ("cls.toml", "model.kind = 'cls'\ndata.train = 't.csv'\n");
    const JOINT: (&str, &str) = ("joint.toml", "model.kind = 'joint'\nmodel.init_cls = '@cls'\ndata.train = 't.txt'\n");
    const ALL: (&str, &str) = ("all.toml", "run.seed = 7\ntrain.stages = ['cls.toml', 'joint.toml']\n");

    #[test]
    fn stages_run_in_folders_of_the_pipeline_and_name_earlier_ones() {
        let stages = pipeline(&[CLS, JOINT, ALL], &["run.dir=out", "model.width=0.5"]).unwrap();
        assert_eq!(stages.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["cls", "joint"]);
        let joint = &stages[1].config;
        assert_eq!((joint.run.dir.as_path(), joint.run.seed, joint.model.width), (Path::new("out/joint"), 7, 0.5));
        assert_eq!(joint.model.init_cls.as_deref(), Some(Path::new("out/cls")));
    }

    #[test]
    fn what_cannot_be_a_pipeline_is_refused() {
        let error = |files: &[(&str, &str)]| pipeline(files, &[]).unwrap_err().to_string();
        let other = ("all.toml", "model.width = 0.5\ntrain.stages = ['cls.toml']\n");
        assert!(error(&[CLS, other]).contains("there is 'model'"));
        let backwards = ("all.toml", "train.stages = ['joint.toml', 'cls.toml']\n");
        assert!(error(&[CLS, JOINT, backwards]).contains("cls is the run of no earlier stage"));
        let narrow =
            ("joint.toml", "model = { kind = 'joint', init_cls = '@cls', width = 0.5 }\ndata.train = 't.txt'\n");
        assert!(error(&[CLS, narrow, ALL]).contains("stage 'cls' has model.width 1"));
        let twice = ("all.toml", "train.stages = ['cls.toml', 'cls.toml']\n");
        assert!(error(&[CLS, twice]).contains("two stages are called 'cls'"));
    }
}
