"""Class-conditional data sets, models and judges: the digits that come with the package, MNIST, CIFAR-10 and STL-10."""
