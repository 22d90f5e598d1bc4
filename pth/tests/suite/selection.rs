//! Which tensors of a file are its weights.

use crate::support::*;

const TWO: [(&str, &[u8]); 2] = [("0", &[7, 8]), ("1", &[9, 9])];

fn read(items: &[(&str, &[u8])]) -> Vec<pth::Tensor> {
    pth::from_bytes(&new(&pickle(&dict(items)), &TWO)).unwrap()
}

#[test]
fn wrapped_state_dicts() {
    let other = view(&storage("ByteStorage", "1", 2), 0, &[2], &[1]);
    let (inner, decoy) = (dict(&[("w", &seven("0"))]), dict(&[("other", &other)]));
    for wrapper in ["state_dict", "model", "model_state_dict", "net", "network"] {
        let optimizer = dict(&[("state", &dict(&[("momentum", &other)])), ("lr", b"G\x3f\xf0\0\0\0\0\0\0")]);
        let found = read(&[("epoch", b"K\x03"), (wrapper, &inner), ("optimizer", &optimizer), ("log", b"](NNe")]);
        assert_eq!(found, [bytes("w", &[7, 8])], "{wrapper}");
    }
    assert_eq!(read(&[("net", &decoy), ("model", &inner)]), [bytes("w", &[7, 8])]);
    assert_eq!(read(&[("model", b"X\x03\0\0\0vgg"), ("net", &inner)]), [bytes("w", &[7, 8])]);
    // A layer may have such a name.
    assert_eq!(read(&[("model", &seven("0"))]), [bytes("model", &[7, 8])]);
    // One level only.
    let twice = new(&pickle(&dict(&[("state_dict", &dict(&[("state_dict", &inner)]))])), &TWO);
    let wrappers = "a checkpoint has its state dict under one of state_dict, model, model_state_dict, net, network";
    fails(&twice, &format!("`state_dict` is a dict, expected a tensor; {wrappers}"));
    fails(
        &new(&pickle(&dict(&[("weights", &inner)])), &TWO),
        &format!("`weights` is a dict, expected a tensor; {wrappers}"),
    );
    let both = pickle(&dict(&[("model", &inner), ("model", &decoy)]));
    fails(&new(&both, &TWO), "`model` is there twice");
}

#[test]
fn a_prefix_that_all_names_have() {
    let seven = seven("0");
    let names = |items: &[(&str, &[u8])]| read(items).into_iter().map(|tensor| tensor.name).collect::<Vec<_>>();
    assert_eq!(names(&[("module.b", &seven[..]), ("module.module.a", &seven)]), ["b", "module.a"]);
    assert_eq!(names(&[("module.b", &seven[..]), ("a", &seven)]), ["module.b", "a"]);
    assert_eq!(names(&[]), [""; 0]);
}

#[test]
fn what_is_no_state_dict() {
    let advice = "expected a state dict; save `model.state_dict()`";
    fails(&new(&pickle(&seven("0")), &TWO), &format!("the file holds a tensor, {advice}"));
    fails(&old(&pickle(b"K\x01"), &[]), &format!("the file holds an integer, {advice}"));
    fails(&new(&pickle(b"}K\x01Ns"), &[]), "the state dict has an integer as a key, expected names only");
    // A string of Python 2 that is no UTF-8.
    fails(&new(&pickle(b"}U\x01\xffNs"), &[]), "the state dict has bytes as a key, expected names only");
    let twice = pickle(&dict(&[("a\nb", &seven("0")), ("a\nb", &seven("0"))]));
    fails(&new(&twice, &TWO), "`a\\nb` is there twice");
    let trailing = [pickle(b"}"), b"xyz".to_vec()].concat();
    fails(&new(&trailing, &[]), "3 bytes follow a/data.pkl; fetch or save the file again");
}
