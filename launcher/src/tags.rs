//! The tags that mpirun puts before each line of its workers (`--output tag`). Pure.
//!
//! A worker that ends in mid-line leaves no line end, and mpirun then writes the next tag straight
//! after it: `[1,0]<stdout>: no end[1,1]<stdout>: next`. Hence a line is split at every tag in it.

use protocol::Rank;

/// Which of a worker's streams a line comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// A piece of mpirun's output: what is left of a line after its tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// Who wrote it; none: mpirun itself.
    pub source: Option<(Rank, Stream)>,
    /// The text, without line end.
    pub text: &'a [u8],
}

/// Splits a line (without its line end) of a job of `world_size` workers.
pub fn split(line: &[u8], world_size: usize) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let (mut source, mut start, mut at) = (None, 0, 0);
    while let Some(i) = find(&line[at..], b"[1,").map(|i| at + i) {
        let Some((next, length)) = tag(&line[i..], world_size) else {
            at = i + 1;
            continue;
        };
        if i > start {
            pieces.push(Piece { source, text: &line[start..i] });
        }
        (source, start, at) = (Some(next), i + length, i + length);
    }
    if start < line.len() || pieces.is_empty() {
        pieces.push(Piece { source, text: &line[start..] });
    }
    pieces
}

/// The tag that `text` starts with, and its length.
fn tag(text: &[u8], world_size: usize) -> Option<((Rank, Stream), usize)> {
    let rest = text.strip_prefix(b"[1,")?;
    let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
    let rank: usize = std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()?;
    let (stream, name): (_, &[u8]) = match &rest[digits..] {
        r if r.starts_with(b"]<stdout>:") => (Stream::Out, b"]<stdout>:"),
        r if r.starts_with(b"]<stderr>:") => (Stream::Err, b"]<stderr>:"),
        _ => return None,
    };
    let space = usize::from(rest.get(digits + name.len()) == Some(&b' '));
    (rank < world_size).then_some(((Rank(rank), stream), 3 + digits + name.len() + space))
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|w| w == what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Vec<(Option<(usize, Stream)>, String)> {
        let own = |p: Piece| (p.source.map(|(r, s)| (r.0, s)), String::from_utf8_lossy(p.text).into_owned());
        split(line.as_bytes(), 12).into_iter().map(own).collect()
    }

    #[test]
    fn a_tag_names_rank_and_stream() {
        assert_eq!(read("[1,0]<stdout>: step 1"), [(Some((0, Stream::Out)), "step 1".into())]);
        assert_eq!(read("[1,11]<stderr>:   indented"), [(Some((11, Stream::Err)), "  indented".into())]);
        assert_eq!(read("[1,3]<stdout>: "), [(Some((3, Stream::Out)), "".into())]);
    }

    #[test]
    fn a_line_without_tag_is_mpiruns_own() {
        for line in ["", "prterun noticed", "[1,x]<stdout>: a", "[1,99]<stdout>: no such rank", "[2,0]<stdout>: a"] {
            assert_eq!(read(line), [(None, line.into())]);
        }
    }

    #[test]
    fn a_missing_line_end_does_not_give_a_line_to_the_wrong_rank() {
        assert_eq!(
            read("[1,0]<stdout>: no end[1,1]<stdout>: next"),
            [(Some((0, Stream::Out)), "no end".into()), (Some((1, Stream::Out)), "next".into())]
        );
        assert_eq!(read("left[1,1]<stderr>: x"), [(None, "left".into()), (Some((1, Stream::Err)), "x".into())]);
    }
}
