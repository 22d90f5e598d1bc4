//! The index of a large data set whose shards are nothing but holes.

use std::fs;
use std::path::Path;

use data_shards::shard::{Finished, Kind, Member, Row, shard_name, write_index};

/// Samples of a shard.
const EACH: u64 = 2048;
/// Slices of a patient.
const SLICES: u64 = 192;
/// Bytes that a member and its header have room in.
const ROOM: u64 = 102_400;

/// Writes a data set of so many samples, each with all members.
pub(crate) fn write(dir: &Path, samples: u64) {
    let shard = |first: u64| {
        let name = shard_name(None, (first / EACH) as usize);
        let bytes = EACH * 5 * ROOM + 1536;
        fs::File::create(dir.join(&name)).unwrap().set_len(bytes).unwrap();
        let rows = (first..samples.min(first + EACH)).map(row).collect();
        Finished { name, bytes, sha256: "0".repeat(64), rows }
    };
    write_index(dir, None, (0..samples).step_by(EACH as usize).map(shard).collect()).unwrap();
}

/// A sample of it.
pub(crate) fn row(sample: u64) -> Row {
    let patient = format!("{:016x}", (sample / SLICES).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let member = |(kind, place): (Kind, u64)| Member {
        kind,
        offset: 512 + (sample % EACH * 5 + place) * ROOM,
        size: 90_000 + sample % 977,
        crc32: (sample * 2_654_435_761 + place) as u32,
    };
    Row {
        key: format!("{patient}-{sample:06}"),
        label: Some(sample.is_multiple_of(3)),
        patient: Some(patient),
        members: Kind::ALL.into_iter().zip(0..).map(member).collect(),
    }
}
