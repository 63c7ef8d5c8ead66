"""What has to be known before a datastore of another toolkit is converted, for each kind of model."""
