//! What a configuration wants of the hosts: its files, its data, its run directory. Pure.

use protocol::config::{Backend, Config, Device, Stage};
use std::path::Path;

/// What the configuration names. Paths are as the workers see them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The configuration's own file, and those of its stages.
    pub files: Vec<String>,
    /// Keys of data on file systems, and the paths.
    pub data: Vec<(String, String)>,
    /// The run directory.
    pub run_dir: Option<String>,
    /// Whether it asks for GPUs in so many words.
    pub cuda: bool,
}

impl Wanted {
    /// Of a training: its configuration in `file`, and the stages where it is a pipeline.
    pub fn of(config: &Config, file: &Path, stages: &[Stage]) -> Wanted {
        let files = std::iter::once(file).chain(stages.iter().map(|stage| stage.file.as_path()));
        let mut data = Vec::new();
        match stages {
            [] => data.extend(data_of(config)),
            stages => stages.iter().flat_map(|stage| data_of(&stage.config)).for_each(|found| {
                if !data.contains(&found) {
                    data.push(found);
                }
            }),
        }
        Wanted {
            files: files.map(|file| file.to_string_lossy().into_owned()).collect(),
            data,
            run_dir: Some(config.run.dir.to_string_lossy().into_owned()),
            cuda: match config.run.device {
                Device::Cuda => true,
                Device::Auto => config.comm.backend == Backend::Nccl,
                Device::Cpu => false,
            },
        }
    }
}

fn data_of(config: &Config) -> Vec<(String, String)> {
    let keys = [("data.train", &config.data.train), ("data.eval", &config.data.eval)];
    let local = keys.into_iter().filter_map(|(key, location)| Some((key.to_owned(), on_disk(location)?)));
    local.collect()
}

/// The path of a location on a file system.
fn on_disk(location: &Path) -> Option<String> {
    let text = location.to_str()?;
    match text.split_once("://") {
        None => (!text.is_empty()).then(|| text.to_owned()),
        Some(("file", path)) if !path.contains('%') => Some(path.to_owned()),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_elsewhere_is_nobodys_file() {
        let path = |text: &str| on_disk(Path::new(text));
        assert_eq!(path("a/train.txt").as_deref(), Some("a/train.txt"));
        assert_eq!(path("file:///data/set").as_deref(), Some("/data/set"));
        assert_eq!(
            [path("s3://b/set"), path("https://h/set"), path(""), path("file:///a%20b")],
            [None, None, None, None]
        );
    }

    #[test]
    fn a_training_wants_its_file_its_data_and_its_directory() {
        let mut config = Config::default();
        config.data.train = "t.txt".into();
        config.run.dir = "runs/a".into();
        let wanted = Wanted::of(&config, Path::new("a.toml"), &[]);
        assert_eq!((wanted.files, wanted.run_dir), (vec!["a.toml".to_owned()], Some("runs/a".to_owned())));
        assert_eq!(wanted.data, [("data.train".to_owned(), "t.txt".to_owned())]);
    }

    #[test]
    fn stages_share_what_they_share() {
        let stage = |name: &str, train: &str| {
            let mut config = Config::default();
            (config.data.train, config.data.eval) = (train.into(), "e.txt".into());
            Stage { name: name.into(), file: format!("{name}.toml").into(), config }
        };
        let wanted =
            Wanted::of(&Config::default(), Path::new("p.toml"), &[stage("one", "t1.txt"), stage("two", "t2.txt")]);
        assert_eq!(wanted.files, ["p.toml", "one.toml", "two.toml"]);
        let paths: Vec<&str> = wanted.data.iter().map(|(_, path)| path.as_str()).collect();
        assert_eq!(paths, ["t1.txt", "e.txt", "t2.txt"]);
    }
}
