//! The report on all inputs: a table for programs, a page for people.

use super::{Class, Outcome};
use std::fmt::Write;

/// `predictions.csv`: a line an input. What no network says is empty.
pub(super) fn csv(outcomes: &[Outcome]) -> String {
    let mut text = String::from("input,folder,height,width,class,covid_probability,");
    text += "lesion_pixels,lesion_share,max_probability\n";
    for o in outcomes {
        let [h, w] = o.size;
        let (input, folder) = (quoted(&o.input), quoted(&o.folder));
        let diagnosis =
            o.diagnosis.as_ref().map_or(",".into(), |d| format!("{},{:.6}", d.class.name(), d.covid_probability));
        let lesions = o
            .lesions
            .as_ref()
            .map_or(",,".into(), |l| format!("{},{:.6},{:.6}", l.lesion_pixels, l.lesion_share, l.max_probability));
        let _ = writeln!(text, "{input},{folder},{h},{w},{diagnosis},{lesions}");
    }
    text
}

fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\n']) { format!("\"{}\"", field.replace('"', "\"\"")) } else { field.into() }
}

/// `report.html`: every input with what was found. It refers to the images beside it and to nothing else.
pub(super) fn html(outcomes: &[Outcome], weights: &str) -> String {
    let cards: String = outcomes.iter().map(card).collect();
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>JCS report</title><style>\
         body{{font:16px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem;color:#1c2430;background:#fff}}\
         h1{{font-size:1.5rem;margin:0 0 .25rem}}p{{margin:.25rem 0 1.5rem;color:#536072}}\
         main{{display:grid;grid-template-columns:repeat(auto-fill,minmax({},1fr));gap:1rem}}\
         figure{{margin:0;border:1px solid #dde3ea;border-radius:6px;overflow:hidden}}\
         div{{display:flex}}img{{flex:1;min-width:0;display:block;background:#000}}figcaption{{padding:.6rem .75rem;font-size:.875rem}}\
         a{{color:#0b5cad}}</style>\
         <h1>JCS: {}</h1>\
         <p>{} Weights: {}. Research use; no medical device.</p>\
         <main>\n{cards}</main></html>\n",
        if outcomes.iter().any(|o| o.lesions.is_some() && o.diagnosis.is_some()) { "24rem" } else { "15rem" },
        counted(outcomes.len(), "slice"),
        findings(outcomes),
        escaped(weights),
    )
}

/// What was found in how many of the inputs, in words.
fn findings(outcomes: &[Outcome]) -> String {
    let mut text = String::new();
    let count = |is: &dyn Fn(&Outcome) -> bool| outcomes.iter().filter(|o| is(o)).count();
    if outcomes.iter().any(|o| o.diagnosis.is_some()) {
        let covid = count(&|o| o.diagnosis.as_ref().is_some_and(|d| d.class == Class::Covid));
        let _ = write!(text, "COVID-19 is the likelier class of {}. ", counted(covid, "slice"));
    }
    if let Some(threshold) = outcomes.iter().find_map(|o| o.lesions.as_ref()).map(|l| l.threshold) {
        let with = count(&|o| o.lesions.as_ref().is_some_and(|l| l.lesion_pixels > 0));
        let _ = write!(text, "Lesions (probability of at least {threshold}) on {}.", counted(with, "slice"));
    }
    text
}

fn counted(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

fn card(o: &Outcome) -> String {
    let (folder, name) = (url(&o.folder), escaped(&o.folder));
    let image = |file: &str, shows: &str| format!("<img loading=lazy alt=\"{name}: {shows}\" src=\"{folder}/{file}\">");
    let (mut images, mut words, mut links) = (String::new(), String::new(), String::new());
    if let Some(lesions) = &o.lesions {
        images += &image("overlay.png", "lesions outlined");
        let (share, most) = (100.0 * lesions.lesion_share, lesions.max_probability);
        let _ = write!(words, "<br>lesion {share:.2} % of the slice, highest probability {most:.2}");
        let _ = write!(links, "<a href=\"{folder}/mask.png\">mask</a> · ");
    }
    if let Some(diagnosis) = &o.diagnosis {
        images += &image("attention.png", "what speaks for COVID-19");
        let (class, probability) = (diagnosis.class.name(), diagnosis.covid_probability);
        words = format!("<br><b>{class}</b> (probability of COVID-19 {probability:.2}){words}");
    }
    format!(
        "<figure><div>{images}</div><figcaption><b>{name}</b>{words}<br>\
         {links}<a href=\"{folder}/result.json\">result</a></figcaption></figure>\n"
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
    use super::super::{Diagnosis, Lesions};
    use super::*;

    #[test]
    fn names_cannot_break_out_of_table_or_page() {
        let lesions = Lesions { threshold: 0.5, lesion_pixels: 3, lesion_share: 0.5, max_probability: 0.75 };
        let diagnosis = Diagnosis { class: Class::Other, covid_probability: 0.25 };
        let outcome = Outcome {
            input: "a,\"b\".png".into(),
            folder: "<b> &".into(),
            size: [2, 3],
            lesions: Some(lesions),
            diagnosis: Some(diagnosis),
        };
        let text = csv(std::slice::from_ref(&outcome));
        let line = "\"a,\"\"b\"\".png\",<b> &,2,3,no COVID-19,0.250000,3,0.500000,0.750000\n";
        assert!(text.ends_with(line), "{text}");
        let page = html(std::slice::from_ref(&outcome), "w");
        assert!(
            page.contains("src=\"%3Cb%3E%20%26/overlay.png\"") && page.contains("<b>&lt;b&gt; &amp;</b>"),
            "{page}"
        );
        let alone = Outcome { lesions: None, ..outcome };
        assert!(csv(std::slice::from_ref(&alone)).ends_with(",no COVID-19,0.250000,,,\n"));
        let read: Outcome = serde_json::from_str(&serde_json::to_string(&alone).unwrap()).unwrap();
        assert_eq!(read, alone);
        let page = html(&[alone], "w");
        assert!(
            page.contains("attention.png") && !page.contains("overlay.png") && page.contains("of 0 slices"),
            "{page}"
        );
    }
}
