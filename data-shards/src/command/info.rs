//! `data-shards info`.

use std::process::ExitCode;

use data_shards::Error;
use data_shards::remote::{CacheSettings, Location};
use data_shards::sets::Set;
use data_shards::shard::{Classes, Info, SetInfo};

use super::{ServerArgs, answer, failed, several};

/// Prints what a location holds, for people or as JSON.
pub(crate) fn info(location: &Location, json: bool, server: ServerArgs) -> ExitCode {
    let info = match open(location, &server.cache()) {
        Ok(info) => info,
        Err(error) => return failed(&error),
    };
    if json {
        answer(format_args!("{:#}", serde_json::json!(info)));
    } else {
        answer(info.sets.iter().map(describe).collect::<Vec<_>>().join("\n\n"));
    }
    ExitCode::SUCCESS
}

fn open(location: &Location, cache: &CacheSettings) -> Result<Info, Error> {
    let sets = Set::all(location, cache)?.map(|set| Ok(SetInfo::of(&set?.index)));
    Ok(Info { sets: sets.collect::<Result<_, Error>>()? })
}

fn describe(set: &SetInfo) -> String {
    let split = set.split.as_deref().map(|split| format!(" (split {split})")).unwrap_or_default();
    let (patients, nobody) = (set.patients, set.without_patient);
    [
        format!("{}{split}", set.dir),
        format!("  samples   {} in {}, {}", set.samples, several(set.shards, "shard"), size(set.bytes)),
        format!("  labels    {}", classes(&set.labels)),
        format!("  patients  {}: {}; {nobody} samples without one", patients.total(), classes(&patients)),
        format!("  masks     {} ({})", set.masks, share(set.masks, set.samples)),
        format!("  members   {} images, {} vgg, {} res2net", set.images, set.vgg, set.res2net),
    ]
    .join("\n")
}

fn classes(classes: &Classes) -> String {
    let Classes { positive, negative, unknown } = *classes;
    let of = |count| share(count, classes.total());
    format!("{positive} positive ({}), {negative} negative ({}), {unknown} unknown", of(positive), of(negative))
}

fn share(count: usize, total: usize) -> String {
    if total == 0 { "-".to_owned() } else { format!("{:.1} %", 100.0 * count as f64 / total as f64) }
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{bytes} bytes"),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}
