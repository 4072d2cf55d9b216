"""`./dev chaos`: real sidecars share a real store while both are hurt; a judge reads what everybody was told. See README.md."""
