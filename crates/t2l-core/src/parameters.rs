//! Named trainable tensors: what optimizers step and checkpoints hold.

use std::collections::BTreeMap;

use burn::tensor::Tensor;

/// One trainable tensor, kept flat so that code which only steps or stores it need not know its rank.
#[derive(Debug, Clone)]
pub struct Parameter {
    /// Shape that [`Parameters::get`] gives it.
    pub shape: Vec<usize>,
    /// The values, row-major: `[shape.product()]`.
    pub values: Tensor<1>,
}

/// Trainable tensors by name, in name order.
///
/// ```
/// # #[cfg(feature = "flex")] {
/// use burn::tensor::{Device, Tensor};
/// use t2l_core::Parameters;
///
/// let mut p = Parameters::default();
/// p.insert("head.bias", Tensor::<2>::zeros([3, 4], &Device::flex()));
/// assert_eq!(p.get::<2>("head.bias").dims(), [3, 4]);
/// assert_eq!(p.count(), 12);
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct Parameters(BTreeMap<String, Parameter>);

impl Parameters {
    /// Adds or replaces a tensor.
    pub fn insert<const D: usize>(&mut self, name: impl Into<String>, tensor: Tensor<D>) {
        let shape = tensor.dims().to_vec();
        let count = shape.iter().product::<usize>();
        self.0.insert(name.into(), Parameter { shape, values: tensor.reshape([count]) });
    }

    /// Adds or replaces a tensor by another's entry.
    pub fn insert_like(&mut self, name: impl Into<String>, parameter: &Parameter) {
        self.0.insert(name.into(), parameter.clone());
    }

    /// A tensor in its own shape.
    ///
    /// # Panics
    /// If there is none of that name or its rank is not `D`: names are fixed by the owner's configuration, which
    /// loaders check before anything is read.
    pub fn get<const D: usize>(&self, name: &str) -> Tensor<D> {
        let parameter = self.0.get(name).unwrap_or_else(|| panic!("no parameter {name:?}"));
        let shape: [usize; D] = parameter.shape.as_slice().try_into().unwrap_or_else(|_| panic!("rank of {name:?}"));
        parameter.values.clone().reshape(shape)
    }

    /// Whether there is a tensor of that name.
    pub fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The entry of that name.
    pub fn entry(&self, name: &str) -> Option<&Parameter> {
        self.0.get(name)
    }

    /// All entries in name order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Parameter)> {
        self.0.iter().map(|(name, p)| (name.as_str(), p))
    }

    /// All entries in name order, for an optimizer.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&str, &mut Parameter)> {
        self.0.iter_mut().map(|(name, p)| (name.as_str(), p))
    }

    /// Number of values in all tensors.
    pub fn count(&self) -> usize {
        self.0.values().map(|p| p.shape.iter().product::<usize>()).sum()
    }

    /// The same values as leaves of a new gradient graph on the autodiff twin of their device.
    pub fn tracked(&self) -> Self {
        self.map(|values| Tensor::from_inner(values.clone()).require_grad())
    }

    fn map(&self, f: impl Fn(&Tensor<1>) -> Tensor<1>) -> Self {
        let entries = self.0.iter();
        Self(entries.map(|(n, p)| (n.clone(), Parameter { shape: p.shape.clone(), values: f(&p.values) })).collect())
    }
}
