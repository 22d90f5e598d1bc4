//! The unpickler: bytes to plain values.
//!
//! Duty: the operations of protocols 2 to 4 that weight files need, one after the other, without recursion. Must not: do
//! anything that is not in [`rebuild`]'s list, allocate by a length it has not compared with what is left, or go on for
//! longer than [`LIMIT`] operations.

use std::collections::HashMap;

use crate::Error;
use crate::error::shown;
use crate::opcode as op;
use crate::rebuild::{self, Global};
use crate::value::{Heap, Value};

/// Operations of one pickle, and values that one operation copies. A tensor of a state dict takes about 30.
pub(crate) const LIMIT: usize = 1 << 20;

/// What a pickle held.
#[derive(Debug)]
pub(crate) struct Pickle<'a> {
    pub(crate) heap: Heap<'a>,
    pub(crate) root: Value<'a>,
    /// Position after it.
    pub(crate) end: usize,
}

/// Reads the pickle that begins at `start`; `part` and positions in `bytes` are for messages.
pub(crate) fn load<'a>(part: &str, bytes: &'a [u8], start: usize) -> Result<Pickle<'a>, Error> {
    let mut machine = Machine {
        part,
        bytes,
        at: start,
        opcode_at: start,
        steps: 0,
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        heap: Heap::default(),
    };
    let root = machine.run()?;
    Ok(Pickle { heap: machine.heap, root, end: machine.at })
}

struct Machine<'a, 'p> {
    part: &'p str,
    bytes: &'a [u8],
    at: usize,
    opcode_at: usize,
    steps: usize,
    stack: Vec<Value<'a>>,
    /// Heights of the stack, ascending; nothing below the last is reached before it is taken away.
    marks: Vec<usize>,
    memo: HashMap<u32, Value<'a>>,
    heap: Heap<'a>,
}

impl<'a> Machine<'a, '_> {
    fn run(&mut self) -> Result<Value<'a>, Error> {
        loop {
            self.opcode_at = self.at;
            self.spend(1)?;
            let [opcode] = self.array()?;
            if opcode == op::STOP {
                let root = self.pop()?;
                let left = self.stack.len() + self.marks.len();
                return if left == 0 { Ok(root) } else { self.wrong("the pickle ends with more than one object") };
            }
            self.step(opcode)?;
        }
    }

    fn step(&mut self, opcode: u8) -> Result<(), Error> {
        match opcode {
            op::PROTO => self.proto(),
            op::FRAME => self.frame(),
            op::NONE => self.push(Value::None),
            op::NEWTRUE => self.push(Value::Bool(true)),
            op::NEWFALSE => self.push(Value::Bool(false)),
            op::BININT1 | op::BININT2 | op::BININT | op::LONG1 => self.integer(opcode),
            op::BINFLOAT => self.array::<8>().and_then(|_| self.push(Value::Float)),
            op::SHORT_BINSTRING | op::BINSTRING | op::SHORT_BINUNICODE | op::BINUNICODE => self.string(opcode),
            op::MARK => {
                self.marks.push(self.stack.len());
                Ok(())
            }
            op::EMPTY_TUPLE => self.tuple(0),
            op::TUPLE1 => self.tuple(1),
            op::TUPLE2 => self.tuple(2),
            op::TUPLE3 => self.tuple(3),
            op::TUPLE => {
                let items = self.pop_mark()?;
                let tuple = self.heap.tuple(items);
                self.push(tuple)
            }
            op::EMPTY_LIST => {
                let list = self.heap.list();
                self.push(list)
            }
            op::APPEND => self.pop().and_then(|item| self.append(vec![item])),
            op::APPENDS => self.pop_mark().and_then(|items| self.append(items)),
            op::EMPTY_DICT => {
                let dict = self.heap.dict(Vec::new());
                self.push(dict)
            }
            op::SETITEM => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set(&[key, value])
            }
            op::SETITEMS => self.pop_mark().and_then(|items| self.set(&items)),
            op::BINPUT | op::LONG_BINPUT | op::MEMOIZE => self.put(opcode),
            op::BINGET | op::LONG_BINGET => self.get(opcode),
            op::GLOBAL | op::STACK_GLOBAL => self.global(opcode),
            op::REDUCE | op::NEWOBJ => self.call(),
            op::BUILD => self.build(),
            op::BINPERSID => {
                let id = self.pop()?;
                let storage = rebuild::persistent(&mut self.heap, id);
                self.push_result(storage)
            }
            _ => Err(Error::Opcode { part: self.part(), at: self.opcode_at, name: op::name(opcode) }),
        }
    }

    fn proto(&mut self) -> Result<(), Error> {
        match self.array()? {
            [2..=4] => Ok(()),
            [version] => self.wrong(format!("pickle protocol {version}; save the file with protocol 2, 3 or 4")),
        }
    }

    /// A frame says how much may be read ahead; nothing is, so that only its length matters.
    fn frame(&mut self) -> Result<(), Error> {
        let length = u64::from_le_bytes(self.array()?);
        if length > self.left() as u64 { Err(self.truncated(length)) } else { Ok(()) }
    }

    fn integer(&mut self, opcode: u8) -> Result<(), Error> {
        let value = match opcode {
            op::BININT1 => Value::Int(i64::from(u8::from_le_bytes(self.array()?))),
            op::BININT2 => Value::Int(i64::from(u16::from_le_bytes(self.array()?))),
            op::BININT => Value::Int(i64::from(i32::from_le_bytes(self.array()?))),
            _ => {
                let [length] = self.array()?;
                long(self.take(u64::from(length))?)
            }
        };
        self.push(value)
    }

    fn string(&mut self, opcode: u8) -> Result<(), Error> {
        let length = match opcode {
            op::SHORT_BINSTRING | op::SHORT_BINUNICODE => u64::from(u8::from_le_bytes(self.array()?)),
            // Python has the length of BINSTRING signed; a negative one is longer than any file here.
            _ => u64::from(u32::from_le_bytes(self.array()?)),
        };
        let text = std::str::from_utf8(self.take(length)?);
        match text {
            Ok(text) => self.push(Value::Str(text)),
            Err(_) if matches!(opcode, op::SHORT_BINSTRING | op::BINSTRING) => self.push(Value::Bytes),
            Err(_) => self.wrong("a string that is not UTF-8"),
        }
    }

    fn tuple(&mut self, length: usize) -> Result<(), Error> {
        let mut items = Vec::with_capacity(length);
        for _ in 0..length {
            items.push(self.pop()?);
        }
        items.reverse();
        let tuple = self.heap.tuple(items);
        self.push(tuple)
    }

    fn append(&mut self, items: Vec<Value<'a>>) -> Result<(), Error> {
        let list = match self.top()? {
            Value::List(id) => self.heap.items_mut(id),
            _ => None,
        };
        match list {
            Some(list) => list.extend(items),
            None => return self.wrong("only a list can be appended to"),
        }
        Ok(())
    }

    fn set(&mut self, items: &[Value<'a>]) -> Result<(), Error> {
        let (pairs, []) = items.as_chunks::<2>() else { return self.wrong("a key without a value") };
        let dict = match self.top()? {
            Value::Dict(id) => self.heap.pairs_mut(id),
            _ => None,
        };
        match dict {
            Some(dict) => dict.extend(pairs.iter().map(|[key, value]| (*key, *value))),
            None => return self.wrong("only a dict can be given keys"),
        }
        Ok(())
    }

    fn put(&mut self, opcode: u8) -> Result<(), Error> {
        let index = match opcode {
            op::BINPUT => u32::from(u8::from_le_bytes(self.array()?)),
            op::LONG_BINPUT => u32::from_le_bytes(self.array()?),
            // Below LIMIT.
            _ => self.memo.len() as u32,
        };
        let value = self.top()?;
        self.memo.insert(index, value);
        Ok(())
    }

    fn get(&mut self, opcode: u8) -> Result<(), Error> {
        let index = match opcode {
            op::BINGET => u32::from(u8::from_le_bytes(self.array()?)),
            _ => u32::from_le_bytes(self.array()?),
        };
        match self.memo.get(&index).copied() {
            Some(value) => self.push(value),
            None => self.wrong(format!("memo {index} is used before it is set")),
        }
    }

    fn global(&mut self, opcode: u8) -> Result<(), Error> {
        let (module, name) = match opcode {
            op::GLOBAL => (self.line()?, self.line()?),
            _ => match (self.pop()?, self.pop()?) {
                (Value::Str(name), Value::Str(module)) => (module, name),
                _ => return self.wrong("a module and its name are strings"),
            },
        };
        match Global::find(module, name) {
            Some(global) => self.push(Value::Global(global)),
            None => {
                let name = shown(&format!("{module}.{name}"));
                Err(Error::Global { part: self.part(), at: self.opcode_at, name })
            }
        }
    }

    fn call(&mut self) -> Result<(), Error> {
        let (args, callee) = (self.pop()?, self.pop()?);
        let (Value::Global(global), Value::Tuple(args)) = (callee, args) else {
            return self.wrong(format!("{} cannot be called with {}", callee.kind(), args.kind()));
        };
        // More arguments than any of the allowed takes are an error, whatever the others are.
        let args: Vec<_> = self.heap.items(args).iter().take(16).copied().collect();
        self.spend(rebuild::copies(&self.heap, global, &args))?;
        let value = rebuild::call(&mut self.heap, global, &args);
        self.push_result(value)
    }

    /// Attributes of a dict (`_metadata`) and of a parameter (requires_grad, hooks) say nothing about weights.
    fn build(&mut self) -> Result<(), Error> {
        let state = self.pop()?;
        match (self.top()?, state) {
            (Value::Dict(_), Value::Dict(_)) | (Value::Tensor(_), Value::Tuple(_)) => Ok(()),
            (object, state) => self.wrong(format!("{} cannot be built from {}", object.kind(), state.kind())),
        }
    }

    fn push(&mut self, value: Value<'a>) -> Result<(), Error> {
        self.stack.push(value);
        Ok(())
    }

    fn push_result(&mut self, value: Result<Value<'a>, String>) -> Result<(), Error> {
        match value {
            Ok(value) => self.push(value),
            Err(problem) => self.wrong(problem),
        }
    }

    /// Height of the stack that must stay.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> Result<Value<'a>, Error> {
        let value = self.top()?;
        self.stack.pop();
        Ok(value)
    }

    fn top(&self) -> Result<Value<'a>, Error> {
        match self.stack.last() {
            Some(value) if self.stack.len() > self.floor() => Ok(*value),
            _ => self.wrong("an operation without its operand"),
        }
    }

    fn pop_mark(&mut self) -> Result<Vec<Value<'a>>, Error> {
        match self.marks.pop() {
            // A mark is never above the stack.
            Some(mark) => Ok(self.stack.split_off(mark)),
            None => self.wrong("an operation without its mark"),
        }
    }

    fn spend(&mut self, steps: usize) -> Result<(), Error> {
        self.steps = self.steps.saturating_add(steps);
        if self.steps > LIMIT {
            return Err(Error::TooLarge { part: self.part(), at: self.opcode_at, limit: LIMIT });
        }
        Ok(())
    }

    fn left(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], Error> {
        let rest = self.bytes.get(self.at..).unwrap_or(&[]);
        let taken = usize::try_from(length).ok().and_then(|length| rest.get(..length));
        let taken = taken.ok_or_else(|| self.truncated(length))?;
        self.at += taken.len();
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let taken = self.take(N as u64)?;
        taken.first_chunk().copied().ok_or_else(|| self.truncated(N as u64))
    }

    fn line(&mut self) -> Result<&'a str, Error> {
        let rest = self.bytes.get(self.at..).unwrap_or(&[]);
        let end = rest.iter().position(|&byte| byte == b'\n').ok_or_else(|| self.truncated(rest.len() as u64 + 1))?;
        let line = std::str::from_utf8(self.take(end as u64)?);
        self.at += 1;
        line.or_else(|_| self.wrong("a name that is not UTF-8"))
    }

    fn part(&self) -> String {
        self.part.to_owned()
    }

    fn truncated(&self, needed: u64) -> Error {
        Error::Truncated { part: self.part(), at: self.opcode_at, needed, left: self.left() }
    }

    fn wrong<T>(&self, problem: impl Into<String>) -> Result<T, Error> {
        Err(Error::Pickle { part: self.part(), at: self.opcode_at, problem: problem.into() })
    }
}

/// Two's complement, little-endian; nothing is 0.
fn long(bytes: &[u8]) -> Value<'_> {
    if bytes.len() > 8 {
        return Value::Long(bytes);
    }
    let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
    let mut filled = [if negative { 0xff } else { 0 }; 8];
    for (place, byte) in filled.iter_mut().zip(bytes) {
        *place = *byte;
    }
    Value::Int(i64::from_le_bytes(filled))
}
