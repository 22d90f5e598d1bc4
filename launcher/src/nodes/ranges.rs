//! Host names with ranges, as clusters and Slurm write them: `gpu[01-04,07]`, `rack[1-2]n[1-8]`. Pure; what
//! a name stands for is no business of this module.

/// More hosts than this are a slip of the finger.
pub const MOST_HOSTS: usize = 1024;

/// A list of hosts that cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// Brackets that do not pair, or lie in each other.
    #[error("{text:?}: the brackets do not pair; a range is written gpu[01-04,07]")]
    Brackets {
        /// The element.
        text: String,
    },
    /// Something in brackets that is neither number nor range.
    #[error("{text:?}: {part:?} is neither a number nor a range of numbers, as in gpu[01-04,07]")]
    Number {
        /// The element.
        text: String,
        /// What stands in the brackets.
        part: String,
    },
    /// A range that ends before it starts.
    #[error("{text:?}: the range {part} ends before it starts")]
    Backwards {
        /// The element.
        text: String,
        /// The range.
        part: String,
    },
    /// An absurd size.
    #[error("{text:?} stands for more than {MOST_HOSTS} hosts, which is the most that a job may have")]
    TooMany {
        /// The element.
        text: String,
    },
    /// No name.
    #[error("{text:?} has an empty element between its commas")]
    Empty {
        /// The list.
        text: String,
    },
}

/// Cuts a list at the commas that stand outside brackets.
pub fn split_list(text: &str) -> Result<Vec<&str>, RangeError> {
    let mut depth = 0usize;
    let at_comma = |c: char| {
        match c {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    };
    let parts: Vec<&str> = text.split(at_comma).map(str::trim).collect();
    if parts.iter().any(|part| part.is_empty()) {
        return Err(RangeError::Empty { text: text.into() });
    }
    Ok(parts)
}

/// The names that one element stands for, in its order; the last range runs fastest.
pub fn expand(text: &str) -> Result<Vec<String>, RangeError> {
    let mut names = vec![String::new()];
    let mut rest = text;
    loop {
        let (literal, after) = rest.split_once('[').map_or((rest, None), |(literal, after)| (literal, Some(after)));
        if literal.contains(']') {
            return Err(RangeError::Brackets { text: text.into() });
        }
        names.iter_mut().for_each(|name| name.push_str(literal));
        let Some(after) = after else { return Ok(names) };
        let (inside, after) = after.split_once(']').ok_or_else(|| RangeError::Brackets { text: text.into() })?;
        names = product(&names, &numbers(text, inside)?, text)?;
        rest = after;
    }
}

fn product(names: &[String], numbers: &[String], text: &str) -> Result<Vec<String>, RangeError> {
    if names.len().saturating_mul(numbers.len()) > MOST_HOSTS {
        return Err(RangeError::TooMany { text: text.into() });
    }
    Ok(names.iter().flat_map(|name| numbers.iter().map(move |number| format!("{name}{number}"))).collect())
}

fn numbers(text: &str, inside: &str) -> Result<Vec<String>, RangeError> {
    let mut all = Vec::new();
    for part in inside.split(',') {
        if part.contains('[') {
            return Err(RangeError::Brackets { text: text.into() });
        }
        all.extend(range(text, part)?);
        if all.len() > MOST_HOSTS {
            return Err(RangeError::TooMany { text: text.into() });
        }
    }
    Ok(all)
}

/// `08-11` is 08, 09, 10, 11: the first number says how many digits there are at least.
fn range(text: &str, part: &str) -> Result<Vec<String>, RangeError> {
    let (first, last) = part.split_once('-').unwrap_or((part, part));
    let (from, to) = (number(text, part, first)?, number(text, part, last)?);
    if from > to {
        return Err(RangeError::Backwards { text: text.into(), part: part.into() });
    }
    if to - from >= MOST_HOSTS as u64 {
        return Err(RangeError::TooMany { text: text.into() });
    }
    let width = first.len();
    Ok((from..=to).map(|n| format!("{n:0width$}")).collect())
}

fn number(text: &str, part: &str, digits: &str) -> Result<u64, RangeError> {
    let wrong = || RangeError::Number { text: text.into(), part: part.into() };
    let plain = (1..=18).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    if plain { digits.parse().map_err(|_| wrong()) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> String {
        expand(text).unwrap().join(" ")
    }

    #[test]
    fn ranges_stand_for_names_in_order() {
        assert_eq!(all("gpu01"), "gpu01");
        assert_eq!(all("gpu[01-04,07]"), "gpu01 gpu02 gpu03 gpu04 gpu07");
        assert_eq!(all("n[9-11]"), "n9 n10 n11");
        assert_eq!(all("n[009-011].lab"), "n009 n010 n011.lab".replace(' ', ".lab ").replace(".lab.lab", ".lab"));
        assert_eq!(all("r[1-2]n[1,3]"), "r1n1 r1n3 r2n1 r2n3");
        assert_eq!(all("n[3,1-2]"), "n3 n1 n2");
    }

    #[test]
    fn lists_are_cut_outside_brackets() {
        assert_eq!(split_list("a,b[1,2],c").unwrap(), ["a", "b[1,2]", "c"]);
        for empty in ["", ",", "a,", "a,,b"] {
            assert!(matches!(split_list(empty), Err(RangeError::Empty { .. })), "{empty}");
        }
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for text in ["n[", "n]", "n[1", "n1]", "n[1-2]]", "n[[1]]", "n[1,[2-3]]"] {
            assert!(matches!(expand(text), Err(RangeError::Brackets { .. })), "{text}: {:?}", expand(text));
        }
        for text in ["n[]", "n[a]", "n[1-]", "n[-1]", "n[1-2-3]", "n[1,]", "n[+1]", "n[1 -2]", "n[9999999999999999999]"]
        {
            assert!(matches!(expand(text), Err(RangeError::Number { .. })), "{text}: {:?}", expand(text));
        }
        assert!(matches!(expand("n[4-1]"), Err(RangeError::Backwards { .. })));
    }

    #[test]
    fn absurd_sizes_cost_nothing() {
        let huge = format!("n[{}]", vec!["0-1023"; 1000].join(","));
        for text in ["n[0-999999999999999999]", "n[1-1025]", "n[1-1000]m[1-1000]", "n[1-2]m[1-1024]", &huge] {
            assert!(matches!(expand(text), Err(RangeError::TooMany { .. })), "{text:.40}");
        }
        assert_eq!(expand("n[1-1024]").unwrap().len(), MOST_HOSTS);
    }

    /// Any range is what counting and padding give.
    #[test]
    fn every_range_counts_up_and_keeps_its_width() {
        for width in 1..6 {
            for from in [0u64, 1, 7, 9, 10, 98, 99, 100, 999, 12_345] {
                for length in [1u64, 2, 3, 11, 101] {
                    let first = format!("{from:0width$}");
                    let names = expand(&format!("a[{first}-{}]z", from + length - 1)).unwrap();
                    let expected: Vec<_> =
                        (from..from + length).map(|n| format!("a{n:0w$}z", w = first.len())).collect();
                    assert_eq!(names, expected);
                }
            }
        }
    }

    /// Texts of brackets, digits and commas in any order: an answer or an error, never more than the bound.
    #[test]
    fn no_text_breaks_the_reader() {
        let letters = ['[', ']', '1', '0', '-', ',', 'n'];
        for seed in 0..letters.len().pow(5) {
            let text: String = (0..5).map(|i| letters[seed / letters.len().pow(i) % letters.len()]).collect();
            if let Ok(names) = expand(&text) {
                assert!((1..=MOST_HOSTS).contains(&names.len()), "{text}");
                assert!(names.iter().all(|name| !name.contains(['[', ']'])), "{text}: {names:?}");
            }
        }
    }
}
