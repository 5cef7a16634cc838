"""Chapter 2: Hessian matrices."""
