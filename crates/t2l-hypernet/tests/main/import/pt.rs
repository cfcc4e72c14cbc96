//! Writes `.pt` files as `torch.save` does, and ones that it would never write.

use std::io::Write;
use std::path::Path;

use zip::CompressionMethod;
use zip::write::SimpleFileOptions;

/// A pickle of protocol 2 in the making.
#[derive(Default)]
pub struct Pickle(pub Vec<u8>);

impl Pickle {
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub fn text(&mut self, text: &str) -> &mut Self {
        self.raw(b"X").raw(&(text.len() as u32).to_le_bytes()).raw(text.as_bytes())
    }

    fn ints(&mut self, values: &[usize]) -> &mut Self {
        self.raw(b"(");
        for &value in values {
            self.int(value);
        }
        self.raw(b"t")
    }

    fn int(&mut self, value: usize) {
        match i32::try_from(value) {
            Ok(small) => self.raw(b"J").raw(&small.to_le_bytes()),
            Err(_) => self.raw(b"\x8a\x09").raw(&(value as u64).to_le_bytes()).raw(b"\0"),
        };
    }

    /// `_rebuild_tensor_v2` of a storage.
    pub fn tensor(
        &mut self,
        storage: &str,
        kind: &str,
        stored: usize,
        shape: &[usize],
        strides: &[usize],
    ) -> &mut Self {
        self.raw(b"ctorch._utils\n_rebuild_tensor_v2\n((").text("storage");
        self.raw(format!("ctorch\n{kind}\n").as_bytes()).text(storage).text("cpu");
        self.int(stored);
        self.raw(b"tQK\0").ints(shape).ints(strides);
        self.raw(b"\x89ccollections\nOrderedDict\n)RtR")
    }
}

/// A state dict to write.
#[derive(Clone, Default)]
pub struct State {
    pub tensors: Vec<(String, Vec<usize>, Vec<f32>)>,
}

/// Strides of a contiguous tensor.
pub fn strides(shape: &[usize]) -> Vec<usize> {
    (0..shape.len()).map(|i| shape[i + 1..].iter().product()).collect()
}

impl State {
    pub fn without(mut self, prefix: &str) -> Self {
        self.tensors.retain(|t| !t.0.starts_with(prefix));
        self
    }

    pub fn edit(mut self, name: &str, edit: impl FnOnce(&mut (String, Vec<usize>, Vec<f32>))) -> Self {
        edit(self.tensors.iter_mut().find(|t| t.0 == name).expect(name));
        self
    }

    /// The pickle; `more` comes after the items, with the dictionary on top of the stack.
    pub fn pickle(&self, more: &[u8]) -> Vec<u8> {
        let mut pickle = Pickle::default();
        pickle.raw(b"\x80\x02ccollections\nOrderedDict\n)R(");
        for (i, (name, shape, values)) in self.tensors.iter().enumerate() {
            pickle.text(name).tensor(&i.to_string(), "FloatStorage", values.len(), shape, &strides(shape));
        }
        pickle.raw(b"u").raw(more).raw(b".");
        pickle.0
    }

    /// The whole file.
    pub fn bytes(&self, more: &[u8]) -> Vec<u8> {
        archive(&self.pickle(more), &self.storages(), CompressionMethod::Stored)
    }

    pub fn storages(&self) -> Vec<(String, Vec<u8>)> {
        let bytes = |values: &[f32]| values.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.tensors.iter().enumerate().map(|(i, t)| (format!("hypermod/data/{i}"), bytes(&t.2))).collect()
    }
}

/// A zip archive of a pickle and storages.
pub fn archive(pickle: &[u8], storages: &[(String, Vec<u8>)], method: CompressionMethod) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(method);
    let mut add = |name: &str, bytes: &[u8]| {
        zip.start_file(name, options).expect("an entry");
        zip.write_all(bytes).expect("written");
    };
    add("hypermod/data.pkl", pickle);
    add("hypermod/byteorder", b"little");
    for (name, bytes) in storages {
        add(name, bytes);
    }
    add("hypermod/version", b"3\n");
    zip.finish().expect("an archive").into_inner()
}

/// Writes a published folder.
pub fn folder(path: &Path, state: &[u8], args: &str, adapter: &serde_json::Value) {
    std::fs::create_dir_all(path).expect("a folder");
    std::fs::write(path.join("hypermod.pt"), state).expect("written");
    std::fs::write(path.join("args.yaml"), args).expect("written");
    std::fs::write(path.join("adapter_config.json"), adapter.to_string()).expect("written");
}
