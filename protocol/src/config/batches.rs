//! How a global batch is divided, with the arithmetic shown where it cannot be.

use super::{Config, ConfigError, GlobalBatch, Norm, check};
use crate::config::error::Place;

/// The batches of a job on a given number of workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batches {
    /// Samples that an optimizer step consumes.
    pub global: usize,
    /// Samples in one forward and backward pass.
    pub micro: usize,
}

impl Batches {
    /// Forward and backward passes of a step, over all workers.
    pub fn micro_batches(&self) -> usize {
        self.global / self.micro
    }
}

impl Config {
    /// The batches on `world_size` workers. `fixed` is the global batch of the checkpoint that the
    /// run goes on from: `auto` keeps it. Errors do not know where the key stands: see [`ConfigError::located`].
    pub fn plan_batches(&self, world_size: usize, fixed: Option<usize>) -> Result<Batches, ConfigError> {
        let micro = self.train.micro_batch;
        let global = match self.train.global_batch {
            GlobalBatch::Samples(n) => n,
            GlobalBatch::Auto(_) => fixed.unwrap_or(micro * world_size),
        };
        let error = |problem: String| {
            Err(ConfigError::Value {
                place: Place::File("the configuration".into(), 0),
                key: "train.global_batch".into(),
                problem,
            })
        };
        if !global.is_multiple_of(micro) {
            let near = (global / micro).max(world_size) * micro;
            return error(format!(
                "{global} samples are no multiple of train.micro_batch {micro} ({global} = {micro} × {} + {}); \
                 train.global_batch={near} works",
                global / micro,
                global % micro
            ));
        }
        if global / micro < world_size {
            return error(format!(
                "{global} samples are {} micro-batches of {micro}, fewer than the {world_size} workers; \
                 train.global_batch={} works, or --nproc-per-node {}",
                global / micro,
                micro * world_size,
                global / micro
            ));
        }
        let count = global / micro;
        if self.model.norm() == Norm::Sync && !count.is_multiple_of(world_size) {
            return error(format!(
                "{global} samples are {count} micro-batches of {micro} for {world_size} workers, but model.norm = sync needs as \
                 many on each; train.global_batch={} works, or model.norm=batch",
                count.next_multiple_of(world_size) * micro
            ));
        }
        Ok(Batches { global, micro })
    }

    /// The largest micro-batch of at most `most` samples that goes with the other keys on `world_size` workers, where each step
    /// consumes `global` samples.
    pub fn micro_batch_up_to(&self, most: usize, world_size: usize, global: usize) -> Option<usize> {
        let works = |micro: &usize| {
            let mut config = self.clone();
            config.train.micro_batch = *micro;
            config.train.global_batch = GlobalBatch::Samples(global);
            check::first_problem(&config).is_none() && config.plan_batches(world_size, None).is_ok()
        };
        (1..=most).rev().filter(|micro| global.is_multiple_of(*micro)).find(works)
    }

    /// Whether a job that may come to have any of these numbers of workers can always deal its batches out. `auto` is `fixed`,
    /// that of the checkpoint that the run goes on from, else made for the most workers.
    pub fn check_batches(&self, worlds: &[usize], fixed: Option<usize>) -> Result<(), ConfigError> {
        let most = worlds.iter().copied().max().unwrap_or(1);
        let fits = |config: &Config, world: &usize| {
            config.plan_batches(*world, Some(fixed.unwrap_or(config.train.micro_batch * most))).map(drop)
        };
        let Err(error) = worlds.iter().try_for_each(|world| fits(self, world)) else { return Ok(()) };
        let ConfigError::Value { place, key, problem } = error else { return Err(error) };
        if worlds.len() < 2 {
            return Err(ConfigError::Value { place, key, problem });
        }
        let works = |count: &usize| {
            let mut config = self.clone();
            config.train.global_batch = GlobalBatch::Samples(count * self.train.micro_batch);
            worlds.iter().all(|world| fits(&config, world).is_ok())
        };
        let advice = match (most..=MOST_MICRO_BATCHES).find(works) {
            Some(count) => format!("train.global_batch={} works for all of these", count * self.train.micro_batch),
            None => "choose fewer nodes between MIN and MAX".into(),
        };
        let (least, problem) = (worlds.iter().min().unwrap_or(&1), problem.split("; ").next().unwrap_or_default());
        let problem = format!("{problem}; with --nodes MIN:MAX the job may have {least} to {most} workers: {advice}");
        Err(ConfigError::Value { place, key, problem })
    }
}

/// No larger batch is looked for.
const MOST_MICRO_BATCHES: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ModelKind, Size};

    fn config(global: usize, micro: usize) -> Config {
        let mut c = Config::default();
        c.train.global_batch = GlobalBatch::Samples(global);
        c.train.micro_batch = micro;
        c
    }

    #[test]
    fn auto_is_one_micro_batch_a_worker_and_then_fixed() {
        let mut c = Config::default();
        c.train.micro_batch = 2;
        assert_eq!(c.plan_batches(3, None).unwrap(), Batches { global: 6, micro: 2 });
        assert_eq!(c.plan_batches(2, Some(6)).unwrap(), Batches { global: 6, micro: 2 });
    }

    #[test]
    fn errors_show_the_arithmetic_and_what_works() {
        let e = config(10, 4).plan_batches(2, None).unwrap_err().to_string();
        assert!(e.contains("10 = 4 × 2 + 2") && e.contains("train.global_batch=8 works"), "{e}");
        let e = config(8, 4).plan_batches(3, None).unwrap_err().to_string();
        assert!(e.contains("2 micro-batches of 4, fewer than the 3 workers"), "{e}");
        assert!(e.contains("train.global_batch=12 works"), "{e}");
    }

    #[test]
    fn smaller_micro_batches_divide_the_global_batch_and_leave_each_worker_one() {
        let mut c = config(24, 12);
        c.data.train = "list.txt".into();
        assert_eq!(c.micro_batch_up_to(6, 2, 24), Some(6));
        assert_eq!(c.micro_batch_up_to(5, 2, 24), Some(4));
        assert_eq!(c.micro_batch_up_to(12, 3, 24), Some(8));
        assert_eq!(c.micro_batch_up_to(0, 2, 24), None);
        c.model.norm = Some(Norm::Sync);
        assert_eq!(
            c.micro_batch_up_to(6, 5, 40),
            Some(4),
            "8 of 5 or 10 of 4 micro-batches, of 5 workers as many each"
        );
        c.model.kind = ModelKind::Cls;
        c.model.norm = None;
        c.data.size = Size::Square(32);
        assert_eq!(c.micro_batch_up_to(1, 2, 24), None, "one value a channel has no variance");
    }

    #[test]
    fn every_number_of_workers_is_checked() {
        let config = Config::default();
        let problem = |config: &Config, worlds: &[usize], fixed| {
            config.check_batches(worlds, fixed).err().map_or(String::new(), |e| e.to_string())
        };
        assert_eq!(problem(&config, &[1, 2, 3], None), "");
        let begun_on_two = problem(&config, &[1, 2, 3], Some(2 * config.train.micro_batch));
        assert!(
            begun_on_two.contains("fewer than the 3 workers") && begun_on_two.contains("1 to 3 workers"),
            "{begun_on_two}"
        );
        let mut sync = config.clone();
        sync.model.norm = Some(Norm::Sync);
        sync.train.micro_batch = 2;
        let text = problem(&sync, &[1, 2, 3], None);
        assert!(text.contains("train.global_batch=12 works for all of these"), "{text}");
        assert_eq!(problem(&sync, &[1, 2, 3], Some(12)), "");
    }
}
