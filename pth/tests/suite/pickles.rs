//! Pickles that weight files have, and those that they must not have, in exact bytes.

use pth::Error;

use crate::support::*;

/// The object alone, as the only thing of interest in both formats.
#[track_caller]
fn object_fails(object: &[u8], at: usize, problem: &str) {
    fails(&new(object, &[]), &format!("a/data.pkl, byte {at}: {problem}"));
    let before = MAGIC.len() + VERSION.len() + SYSTEM.len();
    fails(&old(object, &[]), &format!("the pickled object, byte {}: {problem}", before + at));
}

const NOT_RUN: &str = "which is not needed for weights and was not run; where you trust the file's author, load it in \
    PyTorch and save `model.state_dict()` alone";

#[test]
fn no_function_is_called() {
    let cases: [(&[u8], usize, &str); 7] = [
        (b"\x80\x02cposix\nsystem\nX\x04\0\0\0true\x85R.", 2, "posix.system"),
        (b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R.", 17, "posix.system"),
        (b"\x80\x02cbuiltins\neval\nX\x01\0\0\x001\x85R.", 2, "builtins.eval"),
        // Never called, and beside the weights, where it would be skipped.
        (b"\x80\x02}(X\x05\0\0\0modelcos\nsystem\nX\x03\0\0\0net}u.", 14, "os.system"),
        (b"\x80\x02ctorch\nload\n.", 2, "torch.load"),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor_v3\n.", 2, "torch._utils._rebuild_tensor_v3"),
        (b"\x80\x02ccollections\nOrdered\tDict\n.", 2, "collections.Ordered\\tDict"),
    ];
    for (object, at, name) in cases {
        object_fails(object, at, &format!("refused `{name}`, {NOT_RUN}"));
    }
    // Allowed names in other combinations are other names.
    object_fails(b"\x80\x02ctorch.nn.parameter\nSize\n.", 2, &format!("refused `torch.nn.parameter.Size`, {NOT_RUN}"));
    // In a part that comes before any check of the object.
    let file = [MAGIC, VERSION, b"\x80\x02cos\nsystem\n)R."].concat();
    fails(&file, &format!("the system information, byte 23: refused `os.system`, {NOT_RUN}"));
}

#[test]
fn a_long_name_is_shortened() {
    let object = [b"\x80\x02cm\n".to_vec(), vec![b'x'; 1000], b"\n.".to_vec()].concat();
    object_fails(&object, 2, &format!("refused `m.{}…`, {NOT_RUN}", "x".repeat(118)));
}

#[test]
fn opcodes_that_are_not_needed() {
    let cases: [(u8, &str); 33] = [
        (b'0', "POP"),
        (b'1', "POP_MARK"),
        (b'2', "DUP"),
        (b'F', "FLOAT"),
        (b'I', "INT"),
        (b'L', "LONG"),
        (b'P', "PERSID"),
        (b'S', "STRING"),
        (b'V', "UNICODE"),
        (b'd', "DICT"),
        (b'g', "GET"),
        (b'i', "INST"),
        (b'l', "LIST"),
        (b'o', "OBJ"),
        (b'p', "PUT"),
        (0x82, "EXT1"),
        (0x83, "EXT2"),
        (0x84, "EXT4"),
        (0x8b, "LONG4"),
        (b'B', "BINBYTES"),
        (b'C', "SHORT_BINBYTES"),
        (0x8d, "BINUNICODE8"),
        (0x8e, "BINBYTES8"),
        (0x8f, "EMPTY_SET"),
        (0x90, "ADDITEMS"),
        (0x91, "FROZENSET"),
        (0x92, "NEWOBJ_EX"),
        (0x96, "BYTEARRAY8"),
        (0x97, "NEXT_BUFFER"),
        (0x98, "READONLY_BUFFER"),
        (0x00, "0x00"),
        (b'z', "0x7a"),
        (0xff, "0xff"),
    ];
    for (opcode, name) in cases {
        let problem = format!("refused the pickle opcode {name}, which weight files do not need");
        object_fails(&[0x80, 2, opcode], 2, &problem);
    }
}

#[test]
fn operations_on_what_they_cannot_be_done_on() {
    let cases: [(&[u8], usize, &str); 30] = [
        (b"\x80\x05", 0, "pickle protocol 5; save the file with protocol 2, 3 or 4"),
        (b"\x80\x02.", 2, "an operation without its operand"),
        (b"\x80\x02}}.", 4, "the pickle ends with more than one object"),
        (b"\x80\x02(}.", 4, "the pickle ends with more than one object"),
        (b"\x80\x02}(Q", 4, "an operation without its operand"),
        (b"\x80\x02\x86", 2, "an operation without its operand"),
        (b"\x80\x02q\0", 2, "an operation without its operand"),
        (b"\x80\x02t", 2, "an operation without its mark"),
        (b"\x80\x02h\x05", 2, "memo 5 is used before it is set"),
        (b"\x80\x02j\0\0\0\x05", 2, "memo 83886080 is used before it is set"),
        (b"\x80\x02]Na}Na", 7, "only a list can be appended to"),
        (b"\x80\x02)Na", 4, "only a list can be appended to"),
        (b"\x80\x02]NNs", 5, "only a dict can be given keys"),
        (b"\x80\x02}(Nu", 5, "a key without a value"),
        (b"\x80\x02NN\x93", 4, "a module and its name are strings"),
        (b"\x80\x02X\x01\0\0\0\xff", 2, "a string that is not UTF-8"),
        (b"\x80\x02c\xff\nx\n", 2, "a name that is not UTF-8"),
        (b"\x80\x02X\x01\0\0\0x)R", 9, "a string cannot be called with a tuple"),
        (b"\x80\x02ctorch\nSize\n]R", 15, "a class or function cannot be called with a list"),
        (b"\x80\x02ctorch\nSize\n]\x81", 15, "a class or function cannot be called with a list"),
        (b"\x80\x02ctorch\nFloatStorage\n)R", 23, "Storage(F32) cannot be made from 0 arguments ()"),
        (b"\x80\x02ctorch\nSize\nN\x85R", 16, "Size cannot be made from 1 arguments (None)"),
        (b"\x80\x02ccollections\nOrderedDict\n]Na\x85R", 31, "an OrderedDict is made from pairs"),
        (b"\x80\x02ccollections\nOrderedDict\n}b", 28, "a class or function cannot be built from a dict"),
        (b"\x80\x02]}b", 4, "a list cannot be built from a dict"),
        (b"\x80\x02}]b", 4, "a dict cannot be built from a list"),
        (
            b"\x80\x02NQ",
            3,
            "a persistent id is a tuple ('storage', storage class, key, location, elements), found None",
        ),
        (b"\x80\x02)Q", 3, "a persistent id is a tuple ('storage', storage class, key, location, elements)"),
        (
            b"\x80\x02(X\x07\0\0\0storageNX\x01\0\0\x000NK\x01tQ",
            26,
            "a persistent id is a tuple ('storage', storage class, key, location, elements), found None as the class",
        ),
        (
            b"\x80\x02(X\x07\0\0\0storagectorch\nByteStorage\nX\x01\0\0\x000NJ\xff\xff\xff\xfftQ",
            47,
            "a storage of -1 elements",
        ),
    ];
    for (object, at, problem) in cases {
        object_fails(object, at, problem);
    }
}

#[test]
fn lengths_are_compared_with_what_is_left() {
    // The list of storages and its bytes follow the object in the format before 1.6, so that it is an archive here.
    let cases: [(&[u8], usize, u64, usize); 10] = [
        (b"", 0, 1, 0),
        (b"\x80", 0, 1, 0),
        (b"\x80\x02J\0\0", 2, 4, 2),
        (b"\x80\x02X\xff\xff\xff\xffab", 2, 0xffff_ffff, 2),
        (b"\x80\x02T\xff\xff\xff\x7fab", 2, 0x7fff_ffff, 2),
        (b"\x80\x02U\x03ab", 2, 3, 2),
        (b"\x80\x02\x8a\xffab", 2, 255, 2),
        (b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\xff.", 2, u64::MAX, 1),
        (b"\x80\x02cos", 2, 3, 2),
        (b"\x80\x02G\0\0", 2, 8, 2),
    ];
    for (object, at, needed, left) in cases {
        let message = "cut short, {needed} bytes expected, {left} left; fetch or save the file again"
            .replace("{needed}", &needed.to_string())
            .replace("{left}", &left.to_string());
        fails(&new(object, &[]), &format!("a/data.pkl, byte {at}: {message}"));
    }
    let object = pickle(&dict(&[("w", &seven("0"))]));
    for length in 0..object.len() {
        assert!(matches!(pth::from_bytes(&new(&object[..length], &[("0", &[7, 8])])), Err(Error::Truncated { .. })));
    }
}

#[test]
fn the_work_is_bounded() {
    let limit = 1 << 20;
    let message = format!("more than {limit} objects; save `model.state_dict()` alone");
    let many = [b"\x80\x02".to_vec(), b"]".repeat(limit + 10)].concat();
    fails(&new(&many, &[]), &format!("a/data.pkl, byte {}: {message}", limit + 1));
    // A list of 1000 pairs, and 2000 times an OrderedDict of it.
    let mut object = b"\x80\x02ccollections\nOrderedDict\nq\0](".to_vec();
    object.extend(b"NN\x86".repeat(1000));
    object.extend(b"eq\x01");
    object.extend(b"h\0h\x01\x85R".repeat(2000));
    let error = pth::from_bytes(&new(&object, &[])).unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");
}

#[test]
fn what_holds_itself_ends() {
    // l = []; l.append(l); d = {}; d["state_dict"] = d
    fails(&new(b"\x80\x02]q\0h\0a.", &[]), "the file holds a list, expected a state dict; save `model.state_dict()`");
    let error = pth::from_bytes(&new(b"\x80\x02}q\0X\x0a\0\0\0state_dicth\0s.", &[])).unwrap_err();
    assert!(matches!(error, Error::NotATensor { .. }), "{error}");
    // A shape that holds itself: t = ([t],)
    let shape = b"]q\0h\0\x85a";
    let tensor = [b"ctorch._utils\n_rebuild_tensor\n(", &storage("ByteStorage", "0", 2)[..], b"K\0", shape, b")tR"];
    let error = pth::from_bytes(&new(&single(&tensor.concat()), &[("0", &[7, 8])])).unwrap_err();
    assert!(matches!(error, Error::Pickle { .. }), "{error}");
}

#[test]
fn files_of_other_writers() {
    let expected = [bytes("w", &[7, 8])];
    let tensor = seven("0");
    // Python 2: strings of bytes, and an OrderedDict from a list of pairs with attributes.
    let python2 = [b"ccollections\nOrderedDict\n](](U\x01w", &tensor[..], b"ee\x85R}U\x09_metadata}sb"].concat();
    assert_eq!(pth::from_bytes(&new(&pickle(&python2), &[("0", &[7, 8])])).unwrap(), expected);
    // PyTorch before 0.4: _rebuild_tensor with a torch.Size, and a Parameter with state.
    let size = b"ctorch\nSize\nK\x02\x85\x85R";
    let plain =
        [b"ctorch._utils\n_rebuild_tensor\n(", &storage("ByteStorage", "0", 2)[..], b"K\0", size, b"K\x01\x85tR"]
            .concat();
    let parameter = [b"ctorch.nn.parameter\nParameter\n", &plain[..], b"\x85R(\x88\x89ccollections\nOrderedDict\n)Rtb"];
    assert_eq!(pth::from_bytes(&new(&single(&plain), &[("0", &[7, 8])])).unwrap(), expected);
    assert_eq!(pth::from_bytes(&old(&single(&parameter.concat()), &[("0", 2, &[7, 8])])).unwrap(), expected);
    let rebuilt = [b"ctorch._utils\n_rebuild_parameter\n", &tensor[..], b"\x88ccollections\nOrderedDict\n)R\x87R"];
    assert_eq!(pth::from_bytes(&new(&single(&rebuilt.concat()), &[("0", &[7, 8])])).unwrap(), expected);
    // Metadata of a negated view.
    let negated = tensor.strip_suffix(b"tR").unwrap();
    let negated = [negated, b"}X\x03\0\0\0neg\x88stR"].concat();
    let error = pth::from_bytes(&new(&single(&negated), &[("0", &[7, 8])])).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("a tensor with metadata (a negated or conjugated view); save it as `tensor.clone()`")
    );
}
