//! The report on all inputs: a table for programs, a page for people.

use super::Outcome;
use std::fmt::Write;
use std::path::Path;

/// `predictions.csv`: a line an input.
pub(super) fn csv(outcomes: &[Outcome]) -> String {
    let mut text = String::from("input,folder,height,width,lesion_pixels,lesion_share,max_probability\n");
    for o in outcomes {
        let [h, w] = o.size;
        let (input, folder) = (quoted(&o.input), quoted(&o.folder));
        let _ = writeln!(
            text,
            "{input},{folder},{h},{w},{},{:.6},{:.6}",
            o.lesion_pixels, o.lesion_share, o.max_probability
        );
    }
    text
}

fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\n']) { format!("\"{}\"", field.replace('"', "\"\"")) } else { field.into() }
}

/// `report.html`: every input with its overlay. It refers to the images beside it and to nothing else.
pub(super) fn html(outcomes: &[Outcome], weights: &Path) -> String {
    let mut cards = String::new();
    for o in outcomes {
        let (folder, name) = (url(&o.folder), escaped(&o.folder));
        let _ = writeln!(
            cards,
            "<figure><img loading=lazy alt=\"{name}: lesions outlined\" src=\"{folder}/overlay.png\">\
             <figcaption><b>{name}</b><br>lesion {:.2} % of the slice<br>highest probability {:.2}<br>\
             <a href=\"{folder}/mask.png\">mask</a> · <a href=\"{folder}/result.json\">result</a></figcaption></figure>",
            100.0 * o.lesion_share,
            o.max_probability
        );
    }
    let with = outcomes.iter().filter(|o| o.lesion_pixels > 0).count();
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>JCS report</title><style>\
         body{{font:16px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem;color:#1c2430;background:#fff}}\
         h1{{font-size:1.5rem;margin:0 0 .25rem}}p{{margin:.25rem 0 1.5rem;color:#536072}}\
         main{{display:grid;grid-template-columns:repeat(auto-fill,minmax(15rem,1fr));gap:1rem}}\
         figure{{margin:0;border:1px solid #dde3ea;border-radius:6px;overflow:hidden}}\
         img{{width:100%;display:block;background:#000}}figcaption{{padding:.6rem .75rem;font-size:.875rem}}\
         a{{color:#0b5cad}}</style>\
         <h1>JCS: lesions on {} slices</h1>\
         <p>{with} of them show lesions (probability of at least {}). Weights: {}. Research use; no medical device.</p>\
         <main>\n{cards}</main></html>\n",
        outcomes.len(),
        outcomes.first().map_or(0.5, |o| o.threshold),
        escaped(&weights.display().to_string()),
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A path of one part, as it may stand in a URL.
fn url(name: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b);
    name.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_break_out_of_table_or_page() {
        let outcome = Outcome {
            input: "a,\"b\".png".into(),
            folder: "<b> &".into(),
            size: [2, 3],
            threshold: 0.5,
            lesion_pixels: 3,
            lesion_share: 0.5,
            max_probability: 0.75,
        };
        let text = csv(std::slice::from_ref(&outcome));
        assert!(text.ends_with("\"a,\"\"b\"\".png\",<b> &,2,3,3,0.500000,0.750000\n"), "{text}");
        let page = html(&[outcome], Path::new("w"));
        assert!(page.contains("src=\"%3Cb%3E%20%26/overlay.png\"") && page.contains("<b>&lt;b&gt; &amp;</b>"));
    }
}
